/* Gives a fuzzer written in Cython to whoever calls LLVMFuzzerTestOneInput.
 *
 * Rules of this file:
 *     - One interpreter, begun once. What is fuzzed takes the GIL to raise and for little else.
 *     - The module is named by FUZZ_TARGET and offers a capsule TARGET, a `target` as below.
 *     - How many inputs have been tried stands in the file FUZZ_COUNT, for whoever watches.
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
