/* Replaces libFuzzer: makes inputs from the seeds, without guidance by coverage.
 *
 * Rules of this file:
 *     - The same seeds, number and options give the same inputs.
 *     - The command line is a part of libFuzzer's: -runs, -seed, -max_len, -artifact_prefix,
 *       folders of seeds, or files, which are each tried once.
 *     - An input that ends the process is written to a file first.
 */
#include <dirent.h>
#include <fcntl.h>
#include <sanitizer/asan_interface.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_SEEDS 4096
#define MAX_BYTES 65536

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t change_number(uint8_t *data, size_t size, size_t most, unsigned chance);

struct input {
    uint8_t *data;
    size_t size;
};

static struct input seeds[MAX_SEEDS];
static size_t seed_count;
static struct input current;
static char crash_path[4096];
static uint64_t chance = 1;

/* Pieces of the protocol, and numbers at the limits of what is allowed. */
static const char *const pieces[] = {
    "\r\n", "*0\r\n", "*1\r\n", "*3\r\n", "*-1\r\n", "$-1\r\n", "$0\r\n\r\n", ":0\r\n", ":1\r\n",
    ":-1\r\n", "_\r\n", ">3\r\n", "%1\r\n", "|1\r\n", "-ERR \r\n", "+OK\r\n", "$7\r\nmessage\r\n",
    "999999999999999999", "16777216", "16777217", "1048576", "65536", "-256001", "/me/1", "5:claim",
};

static void keep_input(void)
{
    int file = open(crash_path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    if (file >= 0 && write(file, current.data, current.size) >= 0)
        close(file);
}

static void on_abort(int number)
{
    keep_input();
    signal(number, SIG_DFL);
    raise(number);
}

static size_t below(size_t bound)
{
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return bound ? (size_t)(chance % bound) : 0;
}

static void try_input(const uint8_t *data, size_t size)
{
    /* In separate memory, so that AddressSanitizer finds a read beyond its end. */
    current.data = malloc(size ? size : 1);
    current.size = size;
    memcpy(current.data, data, size);
    LLVMFuzzerTestOneInput(current.data, size);
    free(current.data);
}

static void read_seed(const char *path)
{
    static uint8_t bytes[MAX_BYTES];
    FILE *file = fopen(path, "rb");
    size_t size;

    if (!file || seed_count == MAX_SEEDS)
        return;
    size = fread(bytes, 1, sizeof(bytes), file);
    fclose(file);
    seeds[seed_count].data = malloc(size ? size : 1);
    seeds[seed_count].size = size;
    memcpy(seeds[seed_count].data, bytes, size);
    seed_count += 1;
}

static void read_folder(const char *path)
{
    struct dirent **names;
    char place[4096];
    int i, found = scandir(path, &names, NULL, alphasort);

    for (i = 0; i < found; i++) {
        if (names[i]->d_name[0] != '.') {
            snprintf(place, sizeof(place), "%s/%s", path, names[i]->d_name);
            read_seed(place);
        }
        free(names[i]);
    }
    if (found >= 0)
        free(names);
}

static size_t put_in(uint8_t *bytes, size_t size, size_t most, const uint8_t *piece, size_t length)
{
    size_t at = below(size + 1);

    if (length > most - size)
        length = most - size;
    memmove(bytes + at + length, bytes + at, size - at);
    memcpy(bytes + at, piece, length);
    return size + length;
}

static size_t change(uint8_t *bytes, size_t size, size_t most)
{
    uint8_t piece[64];
    const char *text;
    const struct input *other;
    size_t at = below(size), length;

    switch (below(8)) {
    case 0:
        if (size)
            bytes[at] ^= (uint8_t)(1 << below(8));
        return size;
    case 1:
        if (size)
            bytes[at] = (uint8_t)below(256);
        return size;
    case 2:
        if (size)
            bytes[at] = (uint8_t)('0' + below(10));
        return size;
    case 3:
        length = below(size - at + 1);
        memmove(bytes + at, bytes + at + length, size - at - length);
        return size - length;
    case 4:
        length = below(sizeof(piece) < size - at ? sizeof(piece) : size - at + 1);
        memcpy(piece, bytes + at, length);
        return put_in(bytes, size, most, piece, length);
    case 5:
        text = pieces[below(sizeof(pieces) / sizeof(*pieces))];
        return put_in(bytes, size, most, (const uint8_t *)text, strlen(text));
    case 6:
        return change_number(bytes, size, most, (unsigned)below(1u << 31));
    default:
        other = &seeds[below(seed_count)];
        at = below(other->size);
        return put_in(bytes, size, most, other->data + at, below(other->size - at + 1));
    }
}

static void run(unsigned long runs, size_t most)
{
    static uint8_t bytes[MAX_BYTES];
    unsigned long i;
    size_t size, changes;

    for (i = 0; i < seed_count && i < runs; i++)
        try_input(seeds[i].data, seeds[i].size);
    for (; i < runs; i++) {
        const struct input *seed = &seeds[below(seed_count)];
        size = seed->size < most ? seed->size : most;
        memcpy(bytes, seed->data, size);
        for (changes = 1 + below(8); changes; changes--)
            size = change(bytes, size, most);
        try_input(bytes, size);
    }
}

int main(int argc, char **argv)
{
    unsigned long runs = 0;
    size_t most = 4096, files = 0;
    const char *prefix = "./";
    struct stat found;
    int i;

    for (i = 1; i < argc; i++) {
        if (!strncmp(argv[i], "-runs=", 6))
            runs = strtoul(argv[i] + 6, NULL, 10);
        else if (!strncmp(argv[i], "-seed=", 6))
            chance = strtoul(argv[i] + 6, NULL, 10) * 2685821657736338717u + 1;
        else if (!strncmp(argv[i], "-max_len=", 9))
            most = strtoul(argv[i] + 9, NULL, 10);
        else if (!strncmp(argv[i], "-artifact_prefix=", 17))
            prefix = argv[i] + 17;
    }
    if (most > MAX_BYTES / 2)
        most = MAX_BYTES / 2;
    LLVMFuzzerInitialize(&argc, &argv);
    snprintf(crash_path, sizeof(crash_path), "%scrash-%d", prefix, (int)getpid());
    __asan_set_death_callback(keep_input);
    signal(SIGABRT, on_abort);
    for (i = 1; i < argc; i++) {
        if (argv[i][0] == '-' || stat(argv[i], &found))
            continue;
        if (S_ISDIR(found.st_mode)) {
            read_folder(argv[i]);
        } else {
            read_seed(argv[i]);
            files += 1;
        }
    }
    if (!seed_count)
        return 2;
    run(files ? seed_count : runs, most);
    printf("Done %lu runs\n", files ? seed_count : runs);
    return 0;
}
