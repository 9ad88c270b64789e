"""Makes station-temperatures.h5.  Needs h5py 3 and numpy 2; run in this folder."""

import h5py
import numpy as np

rng = np.random.default_rng(2024)
with h5py.File("station-temperatures.h5", "w", libver="earliest", track_order=True) as file:
    file.attrs["title"] = "Hourly air temperature, three stations, January 2024"
    hours = np.arange(744, dtype="i4")
    time = file.create_dataset("time", data=hours, track_times=False)
    time.attrs["units"] = "hours since 2024-01-01T00:00:00Z"
    stations = file.create_group("stations")
    for name, mean in (("vienna", 2.0), ("graz", 0.5), ("innsbruck", -1.5)):
        daily = mean + 4 * np.sin((hours - 9) * 2 * np.pi / 24)
        values = (daily + rng.normal(0, 1, hours.size).cumsum() * 0.05).round(2).astype("f4")
        series = stations.create_dataset(name, data=values, chunks=(186,), compression="gzip", track_times=False)
        series.attrs["units"] = "degC"
    file.create_dataset("grid", data=rng.integers(0, 255, (64, 64), dtype="u1"), track_times=False)
