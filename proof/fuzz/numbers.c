/* Replaces a number in an input by another number.
 *
 * A number in the protocol is a length, a count, a place or a time. A number at the limit of what
 * is allowed, or far above it, has more digits, and libFuzzer does not add digits.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static const char *const edges[] = {
    "0", "-1", "1", "2", "3", "8", "9", "10", "124", "125", "126", "249", "250", "251", "255",
    "256", "512", "513", "2047", "2048", "2049", "65535", "65536", "65537", "1048576", "1048577",
    "9999999", "16777215", "16777216", "16777217", "2147483647", "4294967295", "4294967296",
    "22118400001", "-256", "-256001", "-22118400001", "999999999999999999", "-999999999999999999",
    "9223372036854775807", "-9223372036854775808", "18446744073709551616",
};

static int is_digit(uint8_t byte)
{
    return byte >= '0' && byte <= '9';
}

size_t change_number(uint8_t *data, size_t size, size_t most, unsigned chance)
{
    const char *edge = edges[chance / 256 % (sizeof(edges) / sizeof(*edges))];
    size_t length = strlen(edge), start, end, tried;

    if (!size)
        return size;
    start = chance % size;
    for (tried = 0; tried < size && !is_digit(data[start]); tried++)
        start = (start + 1) % size;
    if (!is_digit(data[start]))
        return size;
    while (start > 0 && is_digit(data[start - 1]))
        start--;
    for (end = start; end < size && is_digit(data[end]); end++)
        ;
    if (start > 0 && data[start - 1] == '-')
        start--;
    if (size - (end - start) + length > most)
        return size;
    memmove(data + start + length, data + end, size - end);
    memcpy(data + start, edge, length);
    return size - (end - start) + length;
}

#ifdef FUZZ_GUIDED
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned chance)
{
    if (chance % 4 == 0)
        return change_number(data, size, most, chance / 4);
    return LLVMFuzzerMutate(data, size, most);
}
#endif
