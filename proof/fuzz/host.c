/* Runs a fuzzer that is written in Cython, for the caller of LLVMFuzzerTestOneInput.
 *
 * Rules of this file:
 *     - There is one interpreter. The fuzzed code takes the GIL only to raise and for little else.
 *     - FUZZ_TARGET names the module, which has a capsule TARGET with a `target` as below.
 *     - The file FUZZ_COUNT has the number of inputs so far, for the campaign.
 */
#include <Python.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

typedef int (*target)(const uint8_t *data, size_t size);

static target chosen;
static uint64_t unwatched;
static volatile uint64_t *count = &unwatched;

static void watch(const char *path)
{
    int file = path ? open(path, O_RDWR) : -1;
    void *shared;

    if (file < 0)
        return;
    shared = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (shared != MAP_FAILED)
        count = shared;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("FUZZ_TARGET");
    PyObject *module, *capsule;

    (void)argc;
    (void)argv;
    watch(getenv("FUZZ_COUNT"));
    Py_InitializeEx(0);
    module = PyImport_ImportModule(name ? name : "replies");
    capsule = module ? PyObject_GetAttrString(module, "TARGET") : NULL;
    chosen = capsule ? (target)PyCapsule_GetPointer(capsule, NULL) : NULL;
    if (!chosen) {
        PyErr_Print();
        exit(2);
    }
    PyEval_SaveThread();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    *count += 1;
    return chosen(data, size);
}
