"""Words without libraries: what is asked for, what is answered, and how things are named."""
