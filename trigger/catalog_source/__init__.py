"""Where catalogs come from: each source reads all of its function files and gives whole, immutable catalogs.

directory.py   a folder on disk, read again when its content changes
snapshot.py    one consistent look at that folder: which files there are, what they hold, what leads out of it
"""
