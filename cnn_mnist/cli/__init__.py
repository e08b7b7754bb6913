"""The command line: composing options, checking them, reporting mistakes."""
