"""Each built-in backend passes the suite that authors of other backends run."""

from scopestream.testing import BackendConformance


class TestInplace(BackendConformance):
    backend = "inplace"


class TestTensorStore(BackendConformance):
    backend = "tensorstore"


class TestAcquireZarr(BackendConformance):
    backend = "acquire-zarr"


class TestZarrPython(BackendConformance):
    backend = "zarr-python"


class TestZarrs(BackendConformance):
    backend = "zarrs"
