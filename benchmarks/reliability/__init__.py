"""Outcomes of damaged files, killed saves, full disks and code in files."""
