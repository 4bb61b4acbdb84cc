"""The backends that come with scopestream, one module each; the core finds them by entry point."""
