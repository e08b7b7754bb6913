"""Findings to one self-contained HTML page; looks at no model."""
