/* Reads what subscribers are sent, on sockets that are connected and subscribed already, and counts the events.
 *
 * usage: drain BOARD MODE EVERY FRAME LATENCIES < CONNECTIONS
 *   BOARD        file of 64-bit counters, see board.py
 *   MODE         none, every, redis or mqtt: what a subscriber has to answer, see peers/
 *   EVERY        every: after how many events an answer is due; mqtt: where the packet's id stands in a frame
 *   FRAME        mqtt: bytes of a frame
 *   LATENCIES    file for the latency of each event in nanoseconds (64-bit), or - for none
 *   CONNECTIONS  two 32-bit numbers (connections, bytes of an answer), the descriptors (32-bit), the answers
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STOP, READY, CLOSED, TOTAL, ACKED, STUCK, HEADER = 16 };
enum mode { NONE, EVERY, REDIS, MQTT };
enum { DIGITS = 20, EVENT = 256, READ_SIZE = 262144, READY_AT_ONCE = 256 };
enum { HEAD = 48, TAIL = 400 }; /* the beginning of XREAD's reply; more than one entry of it */
static const char MARK = '~';

struct connection {
    int fd;
    uint64_t events, answered;
    int figures; /* of a stamp that are still to come */
    uint64_t stamp;
    int place; /* mqtt: bytes of the frame that have come */
    unsigned char id[2];
    char head[HEAD], tail[TAIL]; /* redis: the reply's first bytes, and the last that have come */
    int head_size, tail_size;
    int64_t left; /* redis: events of the reply that are still to come; -1 where its count is not known yet */
};

static volatile uint64_t *board;
static struct connection *connections;
static char *answers, buffer[READ_SIZE];
static int count, answer_size, every, frame, epoll, mode;
static FILE *latencies;

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Answers are small and their socket is empty: one that does not take them is broken. */
static void answer(struct connection *c, const void *data, int size) {
    if (size && send(c->fd, data, size, MSG_NOSIGNAL) != size) board[CLOSED]++;
}

static uint64_t count_marks(const char *data, long size) {
    uint64_t found = 0;
    for (long at = 0; at < size; at++) found += data[at] == MARK;
    return found;
}

static void take_stamps(struct connection *c, const char *data, long size) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    uint64_t now_ns = (uint64_t)now.tv_sec * 1000000000u + now.tv_nsec;
    const char *end = data + size;
    while (data < end) {
        if (!c->figures) {
            data = memchr(data, MARK, end - data);
            if (!data) return;
            data++;
            c->figures = DIGITS;
            c->stamp = 0;
        }
        for (; c->figures && data < end; data++, c->figures--) c->stamp = c->stamp * 10 + (*data - '0');
        if (!c->figures) {
            uint64_t latency = now_ns - c->stamp;
            fwrite(&latency, sizeof latency, 1, latencies);
        }
    }
}

/* The reply to XREAD is *1 *2 $1 s *COUNT and COUNT entries of one size, so the last id stands at a fixed distance
 * from the end. A complete reply is answered with the next XREAD, from that id on. */
static void answer_redis(struct connection *c, const char *data, long size, uint64_t marks) {
    static const char begin[] = "*1\r\n*2\r\n$1\r\ns\r\n*";
    const int known = sizeof begin - 1;
    long keep = size >= TAIL ? 0 : c->tail_size + size > TAIL ? TAIL - size : c->tail_size;
    long some = size >= TAIL ? TAIL : size;
    memmove(c->tail, c->tail + c->tail_size - keep, keep);
    memcpy(c->tail + keep, data + size - some, some);
    c->tail_size = keep + some;
    if (c->left < 0) {
        some = size < HEAD - c->head_size ? size : HEAD - c->head_size;
        memcpy(c->head + c->head_size, data, some);
        c->head_size += some;
        if (c->head_size <= known || !memchr(c->head + known, '\n', c->head_size - known)) return;
        if (memcmp(c->head, begin, known)) {
            fprintf(stderr, "XREAD was answered with %.*s\n", c->head_size, c->head);
            exit(1);
        }
        c->left = atoll(c->head + known);
    }
    c->left -= marks;
    if (c->left || memcmp(c->tail + c->tail_size - 3, "\n\r\n", 3)) return;
    /* <id>\r\n *2\r\n $1\r\n e\r\n $256\r\n <event>\r\n */
    char *end = c->tail + c->tail_size - (2 + 4 + 4 + 3 + 6 + EVENT + 2), *start = end, request[200];
    while (start > c->tail && start[-1] != '\n') start--;
    int length = end - start;
    answer(c, request, snprintf(request, sizeof request,
                                "*8\r\n$5\r\nXREAD\r\n$5\r\nCOUNT\r\n$4\r\n1000\r\n$5\r\nBLOCK\r\n$1\r\n0\r\n"
                                "$7\r\nSTREAMS\r\n$1\r\ns\r\n$%d\r\n%.*s\r\n", length, length, start));
    c->head_size = 0;
    c->left = -1;
}

/* Each PUBLISH is answered with a PUBACK of its packet id; those of one read go out together. The id is wiped out,
 * since it can have a mark in it. */
static void answer_mqtt(struct connection *c, char *data, long size) {
    static unsigned char acks[4 * (READ_SIZE / EVENT + 2)];
    int filled = 0;
    for (long at = 0; at < size;) {
        for (int byte = 0; byte < 2; byte++) {
            long where = at + every + byte - c->place;
            if (c->place > every + byte || where >= size) continue;
            c->id[byte] = data[where];
            data[where] = 0;
        }
        long step = frame - c->place < size - at ? frame - c->place : size - at;
        at += step;
        c->place += step;
        if (c->place == frame) {
            acks[filled++] = 0x40;
            acks[filled++] = 2;
            acks[filled++] = c->id[0];
            acks[filled++] = c->id[1];
            c->place = 0;
        }
    }
    answer(c, acks, filled);
}

static void take(struct connection *c, char *data, long size) {
    if (mode == MQTT) answer_mqtt(c, data, size);
    uint64_t marks = count_marks(data, size);
    if (latencies) take_stamps(c, data, size);
    c->events += marks;
    board[TOTAL] += marks;
    board[HEADER + (c - connections)] = c->events;
    if (mode == REDIS) answer_redis(c, data, size, marks);
    for (; mode == EVERY && c->events - c->answered >= (uint64_t)every; c->answered += every)
        answer(c, answers + (c - connections) * (long)answer_size, answer_size);
}

static void watch(int number, int operation) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = &connections[number]};
    if (epoll_ctl(epoll, operation, connections[number].fd, &event)) die("epoll_ctl");
}

static void read_exactly(void *into, size_t size) {
    if (fread(into, 1, size, stdin) != size) die("standard input");
}

static void set_up(char **arguments) {
    static const char *modes[] = {"none", "every", "redis", "mqtt"};
    int file = open(arguments[1], O_RDWR);
    struct stat status;
    if (file < 0 || fstat(file, &status)) die(arguments[1]);
    board = mmap(0, status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (board == MAP_FAILED) die("mmap");
    while (strcmp(arguments[2], modes[mode])) mode++;
    every = atoi(arguments[3]);
    frame = atoi(arguments[4]);
    if (strcmp(arguments[5], "-") && !(latencies = fopen(arguments[5], "wb"))) die(arguments[5]);
    int32_t sizes[2];
    read_exactly(sizes, sizeof sizes);
    count = sizes[0];
    answer_size = sizes[1];
    connections = calloc(count, sizeof *connections);
    answers = malloc((size_t)count * answer_size + 1);
    for (int number = 0; number < count; number++) {
        int32_t fd;
        read_exactly(&fd, sizeof fd);
        connections[number].fd = fd;
        connections[number].left = -1;
        fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    }
    read_exactly(answers, (size_t)count * answer_size);
}

int main(int argument_count, char **arguments) {
    if (argument_count != 6) return 2;
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* a harness that was killed leaves no reader behind */
    set_up(arguments);
    epoll = epoll_create1(0);
    for (int number = 0; number < count; number++) watch(number, EPOLL_CTL_ADD);
    board[READY] = 1;
    for (int stuck = 0; !board[STOP];) {
        while (stuck < (int)board[STUCK]) watch(stuck++, EPOLL_CTL_DEL);
        while (stuck > (int)board[STUCK]) watch(--stuck, EPOLL_CTL_ADD);
        struct epoll_event ready[READY_AT_ONCE];
        int found = epoll_wait(epoll, ready, READY_AT_ONCE, 20);
        for (int at = 0; at < found; at++) {
            struct connection *c = ready[at].data.ptr;
            long size = recv(c->fd, buffer, READ_SIZE, 0);
            if (size > 0) {
                take(c, buffer, size);
            } else if (size == 0 || (errno != EAGAIN && errno != EINTR)) {
                board[CLOSED]++;
                watch(c - connections, EPOLL_CTL_DEL);
            }
        }
    }
    if (latencies) fclose(latencies);
    return 0;
}
