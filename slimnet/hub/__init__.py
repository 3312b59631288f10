"""The Hugging Face Hub: files of a repository downloaded and uploaded, by its own client, an optional extra."""
