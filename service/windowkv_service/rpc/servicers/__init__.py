"""One file per service: read the request, ask the engine, write the answer. Errors are not caught here."""
