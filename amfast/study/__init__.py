def write_study(run, *, seed=0, **k):
    raise NotImplementedError
