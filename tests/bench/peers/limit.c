/* What the machine can do: a relay that stores what producers send and passes it on to every subscriber.
 *
 * usage: limit INGEST_PORT SUBSCRIBER_PORT FILE
 *
 * One thread and epoll. Each read of a producer is one write and one fdatasync; then the producer is acknowledged
 * (ACK and the number of its lines, as notifyd does) and the subscribers are sent the new bytes, each as much as its
 * socket takes, from its own position in one ring. A producer is not read from while the ring has no room.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { RING = 64 << 20, READ_SIZE = 1 << 20, LINE = 1 << 16, READY_AT_ONCE = 256 };
enum kind { INGEST, FANOUT, PRODUCER, SUBSCRIBER };

struct peer {
    enum kind kind;
    int fd, wants_to_write;
    uint64_t position; /* subscriber: of the next byte; producer: lines that are stored */
    struct peer *next;
    size_t rest_size; /* producer: bytes of a line that is not complete */
    char *rest;
};

static char *ring;
static uint64_t end; /* bytes that were ever put into the ring */
static struct peer *producers, *subscribers;
static int epoll, file, waiting; /* waiting: producers are not read from */

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void watch(struct peer *peer, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    if (epoll_ctl(epoll, operation, peer->fd, &event)) die("epoll_ctl");
}

static struct peer *add(enum kind kind, int fd) {
    struct peer *peer = calloc(1, sizeof *peer);
    peer->kind = kind;
    peer->fd = fd;
    watch(peer, EPOLL_CTL_ADD, EPOLLIN);
    return peer;
}

static void leave(struct peer *peer) {
    struct peer **at = peer->kind == PRODUCER ? &producers : &subscribers;
    while (*at != peer) at = &(*at)->next;
    *at = peer->next;
    close(peer->fd);
    peer->fd = -1; /* an event of this round may still point here: the few bytes are left */
}

static void listen_on(enum kind kind, const char *port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&address, sizeof address) || listen(fd, 4096)) die("listen");
    add(kind, fd);
}

static void take_in(struct peer *listener) {
    int one = 1, fd;
    while ((fd = accept4(listener->fd, 0, 0, SOCK_NONBLOCK)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct peer *peer = add(listener->kind == INGEST ? PRODUCER : SUBSCRIBER, fd);
        struct peer **list = listener->kind == INGEST ? &producers : &subscribers;
        peer->next = *list;
        *list = peer;
        if (peer->kind == SUBSCRIBER) peer->position = end;
        else peer->rest = malloc(LINE);
    }
}

/* Sends what a subscriber has not had, until its socket is full. */
static void supply(struct peer *peer) {
    while (peer->position < end) {
        size_t at = peer->position % RING, size = end - peer->position;
        if (size > RING - at) size = RING - at;
        ssize_t sent = send(peer->fd, ring + at, size, MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno != EAGAIN) return leave(peer);
            break;
        }
        peer->position += sent;
    }
    int wants = peer->position < end;
    if (wants != peer->wants_to_write) {
        peer->wants_to_write = wants;
        watch(peer, EPOLL_CTL_MOD, wants ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

static int has_room(void) {
    uint64_t least = end;
    for (struct peer *peer = subscribers; peer; peer = peer->next)
        if (peer->position < least) least = peer->position;
    return end - least + READ_SIZE + LINE <= RING;
}

static void read_producers(int wanted) {
    waiting = !wanted;
    for (struct peer *peer = producers; peer; peer = peer->next)
        watch(peer, EPOLL_CTL_MOD, wanted ? EPOLLIN : 0);
}

/* Stores the lines of one read. They lie in one piece: the ring is followed by room for one read. */
static void store(struct peer *peer) {
    if (!has_room()) return read_producers(0);
    char *start = ring + end % RING;
    memcpy(start, peer->rest, peer->rest_size);
    ssize_t size = recv(peer->fd, start + peer->rest_size, READ_SIZE, 0);
    if (size == 0 || (size < 0 && errno != EAGAIN)) return leave(peer);
    if (size < 0) return;
    size += peer->rest_size;
    char *last = memrchr(start, '\n', size);
    size_t whole = last ? last + 1 - start : 0;
    peer->rest_size = size - whole;
    if (peer->rest_size > LINE) return leave(peer);
    memcpy(peer->rest, start + whole, peer->rest_size);
    if (!whole) return;
    if (write(file, start, whole) != (ssize_t)whole || fdatasync(file)) die("file");
    for (size_t at = 0; at < whole; at++) peer->position += start[at] == '\n';
    size_t over = end % RING + whole;
    if (over > RING) memcpy(ring, ring + RING, over - RING);
    end += whole;
    char ack[32];
    int length = snprintf(ack, sizeof ack, "ACK %lu\n", (unsigned long)peer->position);
    if (send(peer->fd, ack, length, MSG_NOSIGNAL) < 0 && errno != EAGAIN) leave(peer);
    for (struct peer *each = subscribers, *next; each; each = next) {
        next = each->next;
        if (!each->wants_to_write) supply(each);
    }
}

static void serve(struct peer *peer, uint32_t events) {
    if (peer->fd < 0) return;
    if (peer->kind == INGEST || peer->kind == FANOUT) return take_in(peer);
    if (peer->kind == PRODUCER) return store(peer);
    if (events & EPOLLIN) {
        char words[4096];
        ssize_t size = recv(peer->fd, words, sizeof words, 0);
        if (size == 0 || (size < 0 && errno != EAGAIN)) return leave(peer);
    }
    if (events & EPOLLOUT) supply(peer);
}

int main(int count, char **arguments) {
    if (count != 4) return 2;
    ring = malloc(RING + READ_SIZE + LINE);
    epoll = epoll_create1(0);
    file = open(arguments[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (!ring || file < 0) die(arguments[3]);
    listen_on(INGEST, arguments[1]);
    listen_on(FANOUT, arguments[2]);
    puts("ready");
    fflush(stdout);
    for (;;) {
        struct epoll_event ready[READY_AT_ONCE];
        int found = epoll_wait(epoll, ready, READY_AT_ONCE, -1);
        for (int at = 0; at < found; at++) serve(ready[at].data.ptr, ready[at].events);
        if (waiting && has_room()) read_producers(1);
    }
}
