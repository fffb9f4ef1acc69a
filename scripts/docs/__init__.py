"""Hooks of the documentation site (mkdocs.yml): pages made while it is built."""
