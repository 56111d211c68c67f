/* The first and only program of a guest whose state can be checked to the last count.
 *
 * It counts in memory, and keeps every count in a table of its own pages. Before it goes on with the next, the count is a
 * record in a file on the first disk's ext4, written and flushed. It reads the record before from the disk itself, and its
 * whole table, again and again. What it does is told on the serial port:
 *
 *   READY n      it has begun, after the record n that it found
 *   begin n      the record n is about to be written
 *   done n       the record n is flushed; so many microseconds this took
 *   WRONG ...    something isn't as it must be; it has stopped
 *   BYE          it shuts down, as its power button said
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

enum { RECORD = 4096, PAGE = 4096, PAGES = 2048, WORDS = RECORD / 8 };

static void stop(void)
{
    sync();
    for (;;)
        pause();
}

#define WRONG(...) (printf("WRONG " __VA_ARGS__), printf("\n"), stop())
#define MUST(what) ((what) < 0 ? WRONG("%s: %s", #what, strerror(errno)) : (void)0)

/* Modules need others that may come later: round after round, until none is taken any more. */
static void load_modules(void)
{
    int again = 1;
    while (again) {
        struct dirent *entry;
        DIR *folder = opendir("/modules");
        again = 0;
        if (!folder)
            return;
        while ((entry = readdir(folder))) {
            char path[512];
            snprintf(path, sizeof path, "/modules/%s", entry->d_name);
            int file = open(path, O_RDONLY | O_CLOEXEC);
            /* 4: the kernel unpacks it. */
            int flags = strstr(entry->d_name, ".ko.") ? 4 : 0;
            if (file >= 0 && entry->d_name[0] != '.' && syscall(SYS_finit_module, file, "", flags) == 0)
                again = 1;
            close(file);
        }
        closedir(folder);
    }
}

/* A line is out on the serial port before anything else is done. */
#define SAY(...) (printf(__VA_ARGS__), tcdrain(1))

static uint64_t mixed(uint64_t n)
{
    n = (n ^ (n >> 30)) * 0xbf58476d1ce4e5b9u;
    n = (n ^ (n >> 27)) * 0x94d049bb133111ebu;
    return n ^ (n >> 31);
}

/* A record says its number first, and every other word follows from that and its place. */
static void fill(uint64_t *words, uint64_t number)
{
    words[0] = number;
    for (int i = 1; i < WORDS; i++)
        words[i] = mixed(number * WORDS + i);
}

static int is_record(const uint64_t *words, uint64_t number)
{
    static uint64_t expected[WORDS];
    fill(expected, number);
    return memcmp(words, expected, RECORD) == 0;
}

static uint64_t microseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000ull + now.tv_nsec / 1000;
}

/* The power button, whichever device it is. */
static int is_pressed(void)
{
    static int devices[8], count = -1;
    if (count < 0) {
        for (count = 0; count < 8; count++) {
            char path[64];
            snprintf(path, sizeof path, "/dev/input/event%d", count);
            if ((devices[count] = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
                break;
        }
    }
    for (int i = 0; i < count; i++) {
        struct input_event event;
        while (read(devices[i], &event, sizeof event) == sizeof event)
            if (event.type == EV_KEY && event.code == KEY_POWER && event.value == 1)
                return 1;
    }
    return 0;
}

int main(void)
{
    static uint64_t table[PAGES][PAGE / 8];
    static uint64_t record[WORDS] __attribute__((aligned(4096))), back[WORDS] __attribute__((aligned(4096)));

    mkdir("/dev", 0755);
    mount("dev", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/ttyS0", O_RDWR);
    if (console < 0)
        console = open("/dev/console", O_RDWR);
    dup2(console, 0);
    dup2(console, 1);
    dup2(console, 2);
    setvbuf(stdout, NULL, _IOLBF, 0);
    load_modules();
    for (int tries = 0; access("/dev/vda", F_OK) && access("/dev/sda", F_OK) && tries < 600; tries++)
        usleep(100000);
    const char *disk = access("/dev/vda", F_OK) ? "/dev/sda" : "/dev/vda";
    mkdir("/data", 0755);
    MUST(mount(disk, "/data", "ext4", 0, "errors=remount-ro"));

    int file = open("/data/records", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    MUST(file);
    int direct = open("/data/records", O_RDONLY | O_DIRECT | O_CLOEXEC);
    MUST(direct);
    struct stat found;
    MUST(fstat(file, &found));
    if (found.st_size % RECORD)
        WRONG("half a record: %lld bytes", (long long)found.st_size);
    uint64_t number = found.st_size / RECORD;
    for (uint64_t n = 1; n <= number; n++) {
        if (pread(direct, back, RECORD, (n - 1) * RECORD) != RECORD || !is_record(back, n))
            WRONG("record %llu after a start", (unsigned long long)n);
        for (int word = 0; word < PAGE / 8; word++)
            table[n % PAGES][word] = n + word;
    }
    SAY("READY %llu\n", (unsigned long long)number);

    for (;;) {
        number++;
        for (int word = 0; word < PAGE / 8; word++)
            table[number % PAGES][word] = number + word;
        SAY("begin %llu\n", (unsigned long long)number);
        fill(record, number);
        uint64_t began = microseconds();
        if (pwrite(file, record, RECORD, (number - 1) * RECORD) != RECORD)
            WRONG("writing record %llu: %s", (unsigned long long)number, strerror(errno));
        MUST(fdatasync(file));
        uint64_t took = microseconds() - began;
        SAY("done %llu %llu\n", (unsigned long long)number, (unsigned long long)took);
        if (pread(direct, back, RECORD, (number - 1) * RECORD) != RECORD || !is_record(back, number))
            WRONG("record %llu isn't what was written", (unsigned long long)number);
        if (number % 16 == 0) {
            for (uint64_t page = 0; page < PAGES; page++) {
                uint64_t newest = number - (number - page) % PAGES;
                uint64_t expected = newest >= 1 && newest <= number ? newest : 0;
                for (int word = 0; word < PAGE / 8; word++)
                    if (table[page][word] != (expected ? expected + word : 0))
                        WRONG("memory of page %llu says %llu, not %llu", (unsigned long long)page,
                              (unsigned long long)table[page][word], (unsigned long long)expected);
            }
        }
        if (is_pressed()) {
            close(file);
            close(direct);
            MUST(umount("/data"));
            SAY("BYE\n");
            reboot(RB_POWER_OFF);
        }
    }
}
