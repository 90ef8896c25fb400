"""Best of K: prompts, temperature, scores, selection, the bag of best samples."""
