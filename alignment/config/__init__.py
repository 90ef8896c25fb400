"""What can be set: one pydantic model a section, one YAML file a program."""
