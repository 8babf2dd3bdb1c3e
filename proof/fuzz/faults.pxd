# How a fuzzer fails, and how it poisons memory for AddressSanitizer.

cdef extern from *:
    """
    #include <stdio.h>
    #include <stdlib.h>
    #if defined(__has_feature)
    #if __has_feature(address_sanitizer)
    #define MULTIELECT_FUZZ_ASAN
    #endif
    #endif
    #if defined(__SANITIZE_ADDRESS__) || defined(MULTIELECT_FUZZ_ASAN)
    #include <sanitizer/asan_interface.h>
    #else
    #define ASAN_POISON_MEMORY_REGION(place, size) ((void)(place), (void)(size))
    #define ASAN_UNPOISON_MEMORY_REGION(place, size) ((void)(place), (void)(size))
    #endif
    static void multielect_fuzz_fail(const char *what) {
        fprintf(stderr, "does not hold: %s\\n", what);
        abort();
    }
    static void multielect_fuzz_hide(const void *place, size_t size) {
        ASAN_POISON_MEMORY_REGION(place, size);
    }
    static void multielect_fuzz_show(const void *place, size_t size) {
        ASAN_UNPOISON_MEMORY_REGION(place, size);
    }
    """
    void fail "multielect_fuzz_fail" (const char *what) noexcept nogil
    void hide "multielect_fuzz_hide" (const void *place, size_t size) noexcept nogil
    void show "multielect_fuzz_show" (const void *place, size_t size) noexcept nogil
