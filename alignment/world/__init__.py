"""The built-in synthetic world: a language, its prompts, its facts and its simulated annotators.

No text was written and no label given by a person; every annotator is named `simulated-…`.
"""
