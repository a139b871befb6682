"""Tables from records; nothing here loads a model or runs a stage."""
