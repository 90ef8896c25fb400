"""What a person types: commands of a few lines, and nothing that another room would need."""
