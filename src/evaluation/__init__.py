"""From utterances to transcripts to error rates with their uncertainty."""
