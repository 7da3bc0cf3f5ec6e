"""The screen of each command: ``execute`` has the work done and shows what came of it."""
