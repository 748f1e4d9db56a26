"""An archive of finished calls on disk: who called whom, how it ended, and what happened in it, for so many days."""
