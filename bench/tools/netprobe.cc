// netprobe: small packets and request/response over sockets, for the benchmarks. Answers are JSON, one per line.
//
//   netprobe sink PORT SECONDS
//       counts UDP datagrams that come in until none has for SECONDS
//   netprobe send ADDRESS PORT SECONDS FLOWS
//       sends UDP datagrams of 18 bytes (64-byte frames) as fast as it can, from FLOWS sockets
//   netprobe serve PORT [CONNECTIONS]
//       answers each byte over TCP with one; over one connection after the other, or over so many at once
//   netprobe ask ADDRESS PORT [CONNECTIONS]
//       for each line "COUNT GAP_US" of standard input: COUNT requests over one connection, one at a time, GAP_US
//       apart, after a few that do not count; the microseconds from each to its answer. Over several connections: one
//       request at a time over each, and no gaps
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kBatch = 64;
constexpr size_t kPayload = 18;  // with Ethernet, IPv4, UDP and FCS: 64 bytes

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "netprobe: %s: %s\n", what, std::strerror(errno));
  std::exit(1);
}

sockaddr_in address_of(const char* text, int port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  if (inet_pton(AF_INET, text, &address.sin_addr) != 1) {
    errno = EINVAL;
    fail(text);
  }
  return address;
}

const sockaddr* generic(const sockaddr_in& address) { return reinterpret_cast<const sockaddr*>(&address); }

int make_socket(int type) {
  int fd = socket(AF_INET, type, 0);
  if (fd < 0) fail("socket");
  return fd;
}

void set_option(int fd, int level, int name, int value) {
  if (setsockopt(fd, level, name, &value, sizeof(value)) != 0) fail("setsockopt");
}

int bound_socket(int type, int port) {
  int fd = make_socket(type);
  set_option(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  sockaddr_in any = address_of("0.0.0.0", port);
  if (bind(fd, generic(any), sizeof(any)) != 0) fail("bind");
  return fd;
}

int connected_socket(int type, const char* address, int port) {
  int fd = make_socket(type);
  sockaddr_in peer = address_of(address, port);
  if (connect(fd, generic(peer), sizeof(peer)) != 0) fail("connect");
  return fd;
}

// Buffers for sendmmsg and recvmmsg.
class Messages {
 public:
  explicit Messages(const std::vector<uint8_t>& payload) {
    for (size_t i = 0; i < kBatch; ++i) {
      data_[i] = payload;
      parts_[i] = {data_[i].data(), payload.size()};
      headers_[i].msg_hdr.msg_iov = &parts_[i];
      headers_[i].msg_hdr.msg_iovlen = 1;
    }
  }
  mmsghdr* get() { return headers_.data(); }

 private:
  std::array<std::vector<uint8_t>, kBatch> data_;
  std::array<iovec, kBatch> parts_{};
  std::array<mmsghdr, kBatch> headers_{};
};

void sink(int port, int quiet_seconds) {
  int fd = bound_socket(SOCK_DGRAM, port);
  set_option(fd, SOL_SOCKET, SO_RCVBUFFORCE, 8 << 20);
  Messages messages(std::vector<uint8_t>(2048));
  uint64_t received = 0;
  Clock::time_point first{}, last{};
  timeval wait{30, 0};  // for the first datagram
  while (true) {
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait)) != 0) fail("setsockopt");
    int count = recvmmsg(fd, messages.get(), kBatch, MSG_WAITFORONE, nullptr);
    if (count <= 0) break;
    last = Clock::now();
    if (received == 0) {
      first = last;
      wait = {quiet_seconds, 0};
    }
    received += static_cast<uint64_t>(count);
  }
  std::printf("{\"received\": %llu, \"seconds\": %.6f}\n", static_cast<unsigned long long>(received),
              std::chrono::duration<double>(last - first).count());
}

void send(const char* address, int port, double seconds, int flows, const std::vector<uint8_t>& payload) {
  std::vector<int> sockets;
  for (int i = 0; i < flows; ++i) sockets.push_back(connected_socket(SOCK_DGRAM, address, port));
  Messages messages(payload);
  uint64_t sent = 0;
  const Clock::time_point start = Clock::now();
  for (size_t i = 0; seconds_since(start) < seconds; i = (i + 1) % sockets.size()) {
    int count = sendmmsg(sockets[i], messages.get(), kBatch, 0);
    if (count > 0) sent += static_cast<uint64_t>(count);
    if (count < 0 && errno != ENOBUFS && errno != ECONNREFUSED) fail("sendmmsg");
  }
  std::printf("{\"sent\": %llu, \"seconds\": %.6f}\n", static_cast<unsigned long long>(sent), seconds_since(start));
}

int listening_socket(int port, int backlog) {
  int fd = bound_socket(SOCK_STREAM, port);
  if (listen(fd, backlog) != 0) fail("listen");
  return fd;
}

int accepted_socket(int listener) {
  int fd = accept(listener, nullptr, nullptr);
  if (fd < 0) fail("accept");
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  return fd;
}

void serve(int port) {
  int listener = listening_socket(port, 16);
  while (true) {
    int fd = accepted_socket(listener);
    char byte = 0;
    while (read(fd, &byte, 1) == 1 && write(fd, &byte, 1) == 1) {
    }
    close(fd);
  }
}

// Connections whose other ends have something to say, or have gone.
class Ready {
 public:
  Ready() : epoll_(epoll_create1(0)) {
    if (epoll_ < 0) fail("epoll_create1");
  }

  // `number` is what next() calls it.
  void add(int fd, size_t number) {
    if (fcntl(fd, F_SETFL, O_NONBLOCK) != 0) fail("fcntl");
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.u64 = number;
    if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) fail("epoll_ctl");
  }

  // Waits if there is none.
  size_t next() {
    while (next_ == count_) {
      int count = epoll_wait(epoll_, events_.data(), static_cast<int>(events_.size()), -1);
      if (count < 0 && errno != EINTR) fail("epoll_wait");
      count_ = count < 0 ? 0 : static_cast<size_t>(count);
      next_ = 0;
    }
    return events_[next_++].data.u64;
  }

 private:
  int epoll_;
  std::array<epoll_event, kBatch> events_{};
  size_t next_ = 0, count_ = 0;
};

// Ends when a connection does.
void serve_at_once(int port, int connections) {
  int listener = listening_socket(port, connections);
  std::vector<int> fds;
  Ready ready;
  for (int i = 0; i < connections; ++i) {
    fds.push_back(accepted_socket(listener));
    ready.add(fds.back(), fds.size() - 1);
  }
  char byte = 0;
  while (true) {
    int fd = fds[ready.next()];
    if (read(fd, &byte, 1) != 1 || write(fd, &byte, 1) != 1) break;
  }
}

constexpr int kUnmeasured = 20;  // exchanges of a connection: flows are set up, and who slept is awake

void print(const std::vector<double>& times) {
  std::putchar('[');
  for (size_t i = 0; i < times.size(); ++i) std::printf("%s%.2f", i == 0 ? "" : ", ", times[i]);
  std::puts("]");
  std::fflush(stdout);
}

double exchange(int fd) {
  const Clock::time_point start = Clock::now();
  char byte = 'x';
  if (write(fd, &byte, 1) != 1 || read(fd, &byte, 1) != 1) fail("request");
  return seconds_since(start) * 1e6;
}

void ask(const char* address, int port) {
  int fd = connected_socket(SOCK_STREAM, address, port);
  set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1);
  size_t count = 0;
  int gap_us = 0;
  while (std::scanf("%zu %d", &count, &gap_us) == 2) {
    for (int i = 0; i < kUnmeasured; ++i) exchange(fd);
    std::vector<double> times;
    while (times.size() < count) {
      if (gap_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(gap_us));
      times.push_back(exchange(fd));
    }
    print(times);
  }
}

// Connections with one request each on its way.
class Askers {
 public:
  Askers(const char* address, int port, int connections) : askers_(static_cast<size_t>(connections)) {
    for (size_t i = 0; i < askers_.size(); ++i) {
      askers_[i].fd = connected_socket(SOCK_STREAM, address, port);
      set_option(askers_[i].fd, IPPROTO_TCP, TCP_NODELAY, 1);
      ready_.add(askers_[i].fd, i);
    }
  }

  // The microseconds of each of `count` exchanges over all connections together: who has an answer asks again.
  std::vector<double> exchange(size_t count) {
    std::vector<double> times;
    times.reserve(count);
    size_t asked = 0;
    for (; asked < std::min(count, askers_.size()); ++asked) request(askers_[asked]);
    while (times.size() < count) {
      Asker& asker = askers_[ready_.next()];
      times.push_back(answer(asker));
      if (asked == count) continue;
      request(asker);
      ++asked;
    }
    return times;
  }

  size_t size() const { return askers_.size(); }

 private:
  struct Asker {
    int fd = -1;
    Clock::time_point asked{};
  };

  static void request(Asker& asker) {
    asker.asked = Clock::now();
    char byte = 'x';
    if (write(asker.fd, &byte, 1) != 1) fail("request");
  }

  static double answer(const Asker& asker) {
    char byte = 0;
    if (read(asker.fd, &byte, 1) != 1) fail("answer");
    return seconds_since(asker.asked) * 1e6;
  }

  Ready ready_;
  std::vector<Asker> askers_;
};

void ask_at_once(const char* address, int port, int connections) {
  Askers askers(address, port, connections);
  size_t count = 0;
  int gap_us = 0;
  while (std::scanf("%zu %d", &count, &gap_us) == 2) {
    askers.exchange(kUnmeasured * askers.size());
    print(askers.exchange(count));
  }
}

std::vector<uint8_t> from_hex(const std::string& hex) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<uint8_t>(std::strtoul(hex.substr(i, 2).c_str(), nullptr, 16)));
  }
  return bytes;
}

int run(int argc, char** argv) {
  const std::string verb = argc > 1 ? argv[1] : "";
  auto number = [&](int i) { return std::atoi(argv[i]); };
  if (verb == "sink" && argc == 4) {
    sink(number(2), number(3));
  } else if (verb == "send" && (argc == 6 || argc == 7) && number(5) > 0) {
    send(argv[2], number(3), std::atof(argv[4]), number(5),
         argc == 7 ? from_hex(argv[6]) : std::vector<uint8_t>(kPayload));
  } else if (verb == "serve" && argc == 3) {
    serve(number(2));
  } else if (verb == "serve" && argc == 4 && number(3) > 0) {
    serve_at_once(number(2), number(3));
  } else if (verb == "ask" && argc == 4) {
    ask(argv[2], number(3));
  } else if (verb == "ask" && argc == 5 && number(4) > 0) {
    ask_at_once(argv[2], number(3), number(4));
  } else {
    std::fprintf(
        stderr,
        "usage: netprobe sink PORT SECONDS | send ADDRESS PORT SECONDS FLOWS [HEX] | serve PORT [CONNECTIONS] | "
        "ask ADDRESS PORT [CONNECTIONS]\n");
    return 2;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
