"""Tables, plots and a page from records and stored transcripts; nothing here loads a model or runs a stage."""
