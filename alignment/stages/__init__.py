"""One file a stage: it reads inputs, calls the library and writes outputs."""
