"""`python -m scopestream` is the command `scopestream`."""

from scopestream.cli import app

if __name__ == "__main__":
    app(prog_name="scopestream")
