"""Sections about several runs: of a sweep, of a search, of a committee."""
