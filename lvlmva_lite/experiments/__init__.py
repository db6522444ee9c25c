"""Chapters as programs: run them, record their numbers, hold them to their claims."""
