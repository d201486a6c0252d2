"""CORE's second storey: the outcomes of ``plain``, from as few tokens and passes as possible."""
