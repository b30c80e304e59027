"""Networks as people bring them: definitions of public libraries, each traced, cut, verified, saved and exported."""
