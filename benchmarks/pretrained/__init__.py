"""Pretrained networks from end to end."""
