"""Large files of three formats, and programs that read a part of them. Run with the Python that has the libraries.

    datasets.py make FOLDER BYTES       makes what is not there; tells paths, parts, and the bytes each part takes
    datasets.py netcdf PATH VARIABLE    reads a variable; tells the seconds
    datasets.py parquet PATH A,B        reads two columns; tells the seconds
"""
import json
import os
import sys
import time
from pathlib import Path


def netcdf(path, size):
    """Variables of 10 MB each."""
    import h5py
    import netCDF4
    import numpy
    count = max(size // 10_000_000, 4)
    member = f"field_{count // 2:03}"
    if not path.exists():
        chance = numpy.random.default_rng(1)
        with netCDF4.Dataset(part(path), "w", format="NETCDF4") as file:
            for name, length in (("time", 10), ("lat", 500), ("lon", 500)):
                file.createDimension(name, length)
            for number in range(count):
                field = file.createVariable(f"field_{number:03}", "f4", ("time", "lat", "lon"),
                                            chunksizes=(1, 500, 500))
                field.units = "K"
                field[:] = chance.random((10, 500, 500), dtype="f4")
        done(path)
    with h5py.File(path) as file:
        needed = file[member].id.get_storage_size()
    return {"member": member, "needed": needed}


def parquet(path, size):
    """50 columns."""
    import numpy
    import pyarrow
    import pyarrow.parquet
    rows = max(size // 2 // 50 // 8, 10_000)
    if not path.exists():
        chance = numpy.random.default_rng(2)
        table = pyarrow.table({f"column_{number:02}": chance.random(rows) for number in range(50)})
        pyarrow.parquet.write_table(table, part(path), row_group_size=rows // 8 + 1, use_dictionary=False)
        done(path)
    chosen = ["column_11", "column_37"]
    known = pyarrow.parquet.ParquetFile(path).metadata
    needed = known.serialized_size
    for group in range(known.num_row_groups):
        for number in range(known.num_columns):
            column = known.row_group(group).column(number)
            if column.path_in_schema in chosen:
                needed += column.total_compressed_size
    return {"member": ",".join(chosen), "needed": needed}


def archive(path, size):
    """Members of 16 MiB, or of a twentieth, stored as they are."""
    import zipfile
    each = min(16 << 20, size // 20)
    if not path.exists():
        with zipfile.ZipFile(part(path), "w", zipfile.ZIP_STORED) as file:
            for number in range(size // each):
                file.writestr(f"image-{number:03}.raw", os.urandom(each))
        done(path)
    return {"member": f"image-{size // each // 2:03}.raw", "needed": each}


def part(path):
    return path.with_suffix(".part")


def done(path):
    part(path).rename(path)


def make(folder, size):
    made = {}
    for name, maker in (("netcdf", netcdf), ("parquet", parquet), ("zip", archive)):
        suffix = {"netcdf": "nc"}.get(name, name)
        path = Path(folder) / f"{size >> 20}-mib.{suffix}"
        made[name] = {"path": str(path), **maker(path, size)}
    return made


def read_netcdf(path, member):
    import h5py
    begun = time.perf_counter()
    with h5py.File(path) as file:
        found = file[member][...]
    return {"seconds": time.perf_counter() - begun, "read": found.nbytes}


def read_parquet(path, members):
    import pyarrow.parquet
    begun = time.perf_counter()
    found = pyarrow.parquet.read_table(path, columns=members.split(","))
    return {"seconds": time.perf_counter() - begun, "read": found.nbytes}


def main():
    what, place, more = sys.argv[1:]
    if what == "make":
        answer = make(place, int(more))
    else:
        answer = {"netcdf": read_netcdf, "parquet": read_parquet}[what](place, more)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
