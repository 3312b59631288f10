"""The plan, its execution, and the certificate."""
