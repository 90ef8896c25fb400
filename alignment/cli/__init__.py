"""What a person types: one file a command, and nothing that another room would need."""
