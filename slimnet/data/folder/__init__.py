"""Folders of images: listed, decoded by several processes, and cached."""
