"""Coverage: network definitions of public libraries, each traced, cut, verified, saved and exported."""
