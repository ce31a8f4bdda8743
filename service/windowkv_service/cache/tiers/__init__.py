"""Host memory and Redis behind one contract; base.py holds its promises."""
