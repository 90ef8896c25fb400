"""Answers that ignore the question: rows of every comparison, which show what they are worth."""

CONSTANTS = {
    "polite": "I am happy to help. I hope this helps.",
    "refusing": "I am sorry. I can not help with that.",
}
"""Name → the one answer to every prompt: courtesy without content, and caution without sense."""
