"""Wire ↔ domain, both directions side by side, one file per service. Nothing here waits or asks anybody."""
