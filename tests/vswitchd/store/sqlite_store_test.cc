#include <fcntl.h>
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <random>
#include <thread>

#include "vswitchd/store/store.h"

namespace vswitch {
namespace {

namespace fs = std::filesystem;

// A directory of the test's own, gone with it.
class TemporaryDirectory {
 public:
  TemporaryDirectory() {
    std::string path = fs::temp_directory_path() / "vswitch-store-XXXXXX";
    path_ = mkdtemp(path.data());
  }
  ~TemporaryDirectory() { fs::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string database() const { return path_ + "/vswitch.db"; }

 private:
  std::string path_;
};

std::string read_file(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
void write_file(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}
void run_sql(const std::string& path, const char* sql) {
  sqlite3* database = nullptr;
  ASSERT_EQ(sqlite3_open(path.c_str(), &database), SQLITE_OK);
  char* message = nullptr;
  EXPECT_EQ(sqlite3_exec(database, sql, nullptr, nullptr, &message), SQLITE_OK) << message;
  sqlite3_free(message);
  sqlite3_close(database);
}

// Everything that a store holds, for comparison.
struct Contents {
  std::map<std::pair<std::string, std::string>, std::string> objects;
  std::map<uint64_t, std::pair<std::string, std::string>> rules;
  uint64_t revision = 0;
  bool operator==(const Contents&) const = default;
};

// The status of the first thing that could not be read.
Status read_contents(const Store& store, Contents& contents) {
  contents.revision = store.revision();
  VSWITCH_RETURN_IF_ERROR(store.for_each_object([&](const Store::Batch::Object& object) {
    contents.objects[{object.kind, object.name}] = object.value;
    return Status();
  }));
  return store.for_each_rule([&](uint64_t id, std::string_view bridge, std::string_view value) {
    contents.rules[id] = {std::string(bridge), std::string(value)};
    return Status();
  });
}
Contents contents_of(const Store& store) {
  Contents contents;
  const Status status = read_contents(store, contents);
  EXPECT_TRUE(status.ok()) << status.message();
  return contents;
}

std::unique_ptr<Store> open_good(const std::string& directory) {
  Result<std::unique_ptr<Store>> store = open_sqlite_store(directory);
  EXPECT_TRUE(store.ok()) << store.status().message();
  return store.ok() ? std::move(*store) : nullptr;
}

Store::Batch some_batch() {
  Store::Batch batch;
  batch.put_objects = {
      {"bridge", "br0", "{\"name\":\"br0\"}"}, {"port", "br0", ""}, {"port", "p1", std::string("\0x", 2)}};
  batch.put_rules = {{7, "br0", std::string("\0\xff\x01", 3)}, {1, "br1", ""}, {9, "br0", "nine"}};
  batch.revision = 5;
  return batch;
}

TEST(SqliteStore, ComesBackAsItWas) {
  const TemporaryDirectory directory;
  Contents before;
  {
    const auto store = open_good(directory.path() + "/made/on/the/way");
    EXPECT_EQ(contents_of(*store), Contents());
    ASSERT_TRUE(store->commit(some_batch()).ok());
    before = contents_of(*store);
    EXPECT_EQ(before.revision, 5u);
    EXPECT_EQ(before.objects.at({"port", "p1"}), std::string("\0x", 2));
    EXPECT_EQ(before.rules.at(7).second, std::string("\0\xff\x01", 3));
  }
  EXPECT_EQ(contents_of(*open_good(directory.path() + "/made/on/the/way")), before);
}

TEST(SqliteStore, WhatIsWrittenAheadComesWithTheNextBatch) {
  const TemporaryDirectory directory;
  Contents wanted;
  {
    const auto store = open_good(directory.path());
    ASSERT_TRUE(store->commit(some_batch()).ok());
    ASSERT_TRUE(store->write_ahead(20, "br0", "twenty").ok());
    ASSERT_TRUE(store->write_ahead(21, "br0", "gone again").ok());
    Store::Batch batch;
    batch.delete_rules = {7, 21};
    batch.put_rules = {{22, "br1", "after"}};
    batch.revision = 6;
    ASSERT_TRUE(store->commit(batch).ok());
    wanted = contents_of(*store);
    EXPECT_EQ(wanted.revision, 6u);
    EXPECT_EQ(wanted.rules.at(20), std::pair(std::string("br0"), std::string("twenty")));
    EXPECT_FALSE(wanted.rules.contains(7));
    EXPECT_FALSE(wanted.rules.contains(21));
    EXPECT_TRUE(wanted.rules.contains(22));
  }
  EXPECT_EQ(contents_of(*open_good(directory.path())), wanted);
}

TEST(SqliteStore, WhatIsWrittenAheadCanBeForgotten) {
  const TemporaryDirectory directory;
  Contents wanted;
  {
    const auto store = open_good(directory.path());
    ASSERT_TRUE(store->commit(some_batch()).ok());
    wanted = contents_of(*store);
    store->discard();  // there is nothing
    ASSERT_TRUE(store->write_ahead(20, "br0", "twenty").ok());
    store->discard();
    EXPECT_EQ(contents_of(*store), wanted);
    Store::Batch next;
    next.revision = 6;
    ASSERT_TRUE(store->commit(next).ok());
    wanted.revision = 6;
    EXPECT_EQ(contents_of(*store), wanted);
    ASSERT_TRUE(store->write_ahead(30, "br0", "never committed").ok());
  }
  EXPECT_EQ(contents_of(*open_good(directory.path())), wanted);
}

TEST(SqliteStore, RulesComeInOrderOfId) {
  const TemporaryDirectory directory;
  const auto store = open_good(directory.path());
  ASSERT_TRUE(store->commit(some_batch()).ok());
  std::vector<uint64_t> ids;
  ASSERT_TRUE(store
                  ->for_each_rule([&](uint64_t id, std::string_view, std::string_view) {
                    ids.push_back(id);
                    return Status();
                  })
                  .ok());
  EXPECT_EQ(ids, (std::vector<uint64_t>{1, 7, 9}));
}

Store::Batch batch_of_pages(uint64_t pages, uint64_t revision) {
  Store::Batch batch;
  for (uint64_t id = 1; id <= pages; ++id) batch.put_rules.push_back({id, "br0", std::string(4000, 'x')});
  batch.revision = revision;
  return batch;
}

TEST(SqliteStore, ALongLogIsMovedWhileTheStoreIsOpen) {
  const TemporaryDirectory directory;
  const auto store = open_good(directory.path());
  const auto moved = [&] { return fs::file_size(directory.database()) >= 1'500 * 4'000; };
  ASSERT_TRUE(store->commit(batch_of_pages(1'500, 1)).ok());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (!moved() && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_TRUE(moved());
}

TEST(SqliteStore, AHugeLogIsMovedBeforeTheCommitEnds) {
  const TemporaryDirectory directory;
  const auto store = open_good(directory.path());
  ASSERT_TRUE(store->commit(batch_of_pages(17'000, 1)).ok());
  EXPECT_GE(fs::file_size(directory.database()), 17'000u * 4'000);
}

TEST(SqliteStore, AVisitorsErrorEndsTheVisit) {
  const TemporaryDirectory directory;
  const auto store = open_good(directory.path());
  ASSERT_TRUE(store->commit(some_batch()).ok());
  int visited = 0;
  const auto refuse = [&](auto&&...) {
    ++visited;
    return not_found("enough");
  };
  EXPECT_EQ(store->for_each_object(refuse).message(), "enough");
  EXPECT_EQ(store->for_each_rule(refuse).message(), "enough");
  EXPECT_EQ(visited, 2);
  EXPECT_EQ(contents_of(*store).rules.size(), 3u) << "the next visit starts at the beginning";
}

// The two stores are one interface: whatever is committed, they hold the same, before and after reopening.
TEST(SqliteStore, HoldsWhatTheMemoryStoreHolds) {
  ASSERT_TRUE(rc::check([](uint32_t seed) {
    std::mt19937 random(seed);
    const TemporaryDirectory directory;
    std::unique_ptr<Store> store = open_good(directory.path());
    const std::unique_ptr<Store> model = make_memory_store();
    const auto below = [&](uint32_t n) { return random() % n; };
    const auto name = [&] { return std::string(1, static_cast<char>('a' + below(4))); };
    for (uint64_t revision = 1; revision <= 3; ++revision) {
      Store::Batch batch;
      batch.revision = revision;
      for (uint32_t i = below(4); i > 0; --i)
        batch.put_objects.push_back({name(), name(), std::string(below(40), 'v')});
      for (uint32_t i = below(3); i > 0; --i) batch.delete_objects.push_back({name(), name()});
      for (uint32_t i = below(5); i > 0; --i)
        batch.put_rules.push_back({below(12), name(), std::string(below(40), 'r')});
      for (uint32_t i = below(3); i > 0; --i) batch.delete_rules.push_back(below(12));
      if (below(4) == 0) batch.delete_rules_of_bridge.push_back(name());
      RC_ASSERT(store->commit(batch).ok());
      RC_ASSERT(model->commit(batch).ok());
      RC_ASSERT(contents_of(*store) == contents_of(*model));
    }
    store.reset();
    RC_ASSERT(contents_of(*open_good(directory.path())) == contents_of(*model));
  }));
}

TEST(SqliteStore, DeletesTheRulesOfABridgeBeforeItPutsNewOnes) {
  const TemporaryDirectory directory;
  const auto store = open_good(directory.path());
  ASSERT_TRUE(store->commit(some_batch()).ok());
  Store::Batch batch;
  batch.delete_rules_of_bridge = {"br0"};
  batch.put_rules = {{20, "br0", "new"}};
  ASSERT_TRUE(store->commit(batch).ok());
  const Contents contents = contents_of(*store);
  ASSERT_EQ(contents.rules.size(), 2u);
  EXPECT_TRUE(contents.rules.contains(1));
  EXPECT_TRUE(contents.rules.contains(20));
}

// ---------------------------------------------------------------- refusals

// What open says, which must be of one line and change no byte of `path`.
std::string refusal(const std::string& directory, const std::string& path) {
  const std::string before = read_file(path);
  const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory);
  EXPECT_FALSE(store.ok());
  EXPECT_EQ(read_file(path), before) << "changed what it refused";
  if (store.ok()) return "";
  EXPECT_EQ(store.status().message().find('\n'), std::string::npos);
  return store.status().message();
}

TEST(SqliteStore, RefusesForeignFilesUntouched) {
  const TemporaryDirectory directory;
  const std::string expected =
      "store " + directory.database() + ": not a vswitch store; move it away or give another --state-dir";
  write_file(directory.database(), "shopping list: milk, eggs");
  EXPECT_EQ(refusal(directory.path(), directory.database()), expected);
  write_file(directory.database(), std::string(8192, '\0'));
  EXPECT_EQ(refusal(directory.path(), directory.database()), expected);
  fs::remove(directory.database());
  run_sql(directory.database(), "CREATE TABLE accounts (id INTEGER); INSERT INTO accounts VALUES (1);");
  EXPECT_EQ(refusal(directory.path(), directory.database()), expected);
}

// Somebody else's database whose owner was killed: its log holds data that opening and closing it would move.
TEST(SqliteStore, LeavesTheLogOfAForeignDatabaseAlone) {
  const TemporaryDirectory directory;
  const pid_t child = fork();
  if (child == 0) {
    sqlite3* database = nullptr;
    sqlite3_open(directory.database().c_str(), &database);
    sqlite3_exec(database, "PRAGMA journal_mode=WAL; CREATE TABLE t (x); INSERT INTO t VALUES (1);", nullptr, nullptr,
                 nullptr);
    raise(SIGKILL);
  }
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  const std::string log = directory.database() + "-wal", before = read_file(log);
  ASSERT_FALSE(before.empty());
  refusal(directory.path(), directory.database());
  EXPECT_EQ(read_file(log), before);
}

TEST(SqliteStore, RefusesANewerSchema) {
  const TemporaryDirectory directory;
  open_good(directory.path()).reset();
  run_sql(directory.database(), "PRAGMA user_version=2");
  EXPECT_EQ(refusal(directory.path(), directory.database()),
            "store " + directory.database() +
                ": written by a newer vswitchd (schema 2, this one reads 1); start that version");
}

TEST(SqliteStore, RefusesALogWithoutItsStore) {
  const TemporaryDirectory directory;
  write_file(directory.database() + "-wal", "frames");
  const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path());
  ASSERT_FALSE(store.ok());
  EXPECT_NE(store.status().message().find("missing, but its log"), std::string::npos) << store.status().message();
  EXPECT_EQ(read_file(directory.database() + "-wal"), "frames");
}

TEST(SqliteStore, StartsOverAfterAKillDuringItsCreation) {
  const TemporaryDirectory directory;
  write_file(directory.database() + ".new", "half a store");
  write_file(directory.database(), "");
  EXPECT_EQ(contents_of(*open_good(directory.path())), Contents());
  EXPECT_FALSE(fs::exists(directory.database() + ".new"));
}

TEST(SqliteStore, RefusesADirectoryThatIsNone) {
  const TemporaryDirectory directory;
  write_file(directory.path() + "/file", "x");
  const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path() + "/file");
  ASSERT_FALSE(store.ok());
  EXPECT_EQ(store.status().code(), StatusCode::failed_precondition);
  EXPECT_NE(store.status().message().find(directory.path() + "/file"), std::string::npos) << store.status().message();
}

TEST(SqliteStore, RefusesASecondOpener) {
  const TemporaryDirectory directory;
  const auto first = open_good(directory.path());
  EXPECT_EQ(refusal(directory.path(), directory.database()),
            "state directory " + directory.path() + " is in use by another vswitchd; give another --state-dir");
  ASSERT_TRUE(first->commit(some_batch()).ok());
}

// One flipped bit anywhere: either the store is refused, or nothing that it holds is different.
TEST(SqliteStore, NoFlippedBitChangesWhatIsRead) {
  const TemporaryDirectory directory;
  Contents good;
  {
    const auto store = open_good(directory.path());
    Store::Batch batch = some_batch();
    for (uint64_t id = 100; id < 140; ++id)
      batch.put_rules.push_back({id, "br0", std::string(50, static_cast<char>(id))});
    ASSERT_TRUE(store->commit(batch).ok());
    good = contents_of(*store);
  }
  const std::string bytes = read_file(directory.database());
  std::mt19937 random(1);
  int refused = 0;
  for (int i = 0; i < 1500; ++i) {
    std::string damaged = bytes;
    const size_t at = random() % damaged.size(), bit = random() % 8;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << bit));
    write_file(directory.database(), damaged);
    const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path());
    Contents contents;
    const Status status = store.ok() ? read_contents(**store, contents) : store.status();
    if (status.ok()) {
      ASSERT_EQ(contents, good) << "byte " << at << " bit " << bit;
    } else {
      ++refused;
      ASSERT_NE(status.message().find(directory.database()), std::string::npos) << status.message();
    }
  }
  EXPECT_GT(refused, 100);
}

TEST(SqliteStore, RefusesATruncatedFile) {
  const TemporaryDirectory directory;
  {
    const auto store = open_good(directory.path());
    ASSERT_TRUE(store->commit(some_batch()).ok());
  }
  const std::string bytes = read_file(directory.database());
  for (size_t size = 1; size < bytes.size(); size += 1000) {
    write_file(directory.database(), std::string_view(bytes).substr(0, size));
    const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path());
    Contents contents;
    EXPECT_FALSE(store.ok() && read_contents(**store, contents).ok()) << size << " of " << bytes.size() << " bytes";
  }
}

// ---------------------------------------------------------------- trouble while it runs

// Runs `body` in a child process with a mount namespace of its own, and a file system of `size` (or, "ro", a read-only
// one) at `directory`. Skips where that is not allowed; the child's exit status says whether the body's checks held.
void in_mount_namespace(const std::string& directory, const std::string& options, unsigned long flags,
                        const std::function<bool()>& body) {
  constexpr int kNotAllowed = 77;
  const pid_t child = fork();
  if (child == 0) {
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        mount("tmpfs", directory.c_str(), "tmpfs", flags, options.c_str()) != 0) {
      _exit(kNotAllowed);
    }
    _exit(body() ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status));
  if (WEXITSTATUS(status) == kNotAllowed) GTEST_SKIP() << "needs root: a mount namespace of its own";
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

bool say(const char* what, const std::string& detail = "") {
  fprintf(stderr, "%s %s\n", what, detail.c_str());
  return false;
}

TEST(SqliteStore, RefusesAReadOnlyDirectory) {
  const TemporaryDirectory directory;
  in_mount_namespace(directory.path(), "", MS_RDONLY, [&] {
    const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path());
    if (store.ok()) return say("opened");
    const std::string expected = "cannot write to the state directory " + directory.path() + ": Read-only file system";
    return store.status().message() == expected || say("message:", store.status().message());
  });
}

bool fill_up_and_check(const std::string& directory) {
  Result<std::unique_ptr<Store>> store = open_sqlite_store(directory);
  if (!store.ok()) return say("open:", store.status().message());
  Contents acknowledged;
  Status status;
  for (uint64_t id = 1; status.ok() && id < 10'000; ++id) {
    (void)read_contents(**store, acknowledged).ok();
    Store::Batch batch;
    batch.revision = id;
    batch.put_objects = {{"port", "p", std::to_string(id)}};
    for (uint64_t i = 0; i < 50; ++i) batch.put_rules.push_back({id * 100 + i, "br0", std::string(500, 'x')});
    status = (*store)->commit(batch);
  }
  if (status.code() != StatusCode::resource_exhausted) return say("no refusal for a full disk:", status.message());
  Contents now;
  if (!read_contents(**store, now).ok() || !(now == acknowledged)) return say("the refused commit changed something");
  store->reset();
  Result<std::unique_ptr<Store>> again = open_sqlite_store(directory);
  if (!again.ok()) return say("reopen:", again.status().message());
  Contents after;
  return (read_contents(**again, after).ok() && after == acknowledged) || say("different after reopening");
}

TEST(SqliteStore, AFullDiskLosesNothing) {
  const TemporaryDirectory directory;
  in_mount_namespace(directory.path(), "size=2m", 0, [&] { return fill_up_and_check(directory.path()); });
}

TEST(SqliteStore, RefusesToStartOnAFullDisk) {
  const TemporaryDirectory directory;
  in_mount_namespace(directory.path(), "size=8k", 0, [&] {
    const Result<std::unique_ptr<Store>> store = open_sqlite_store(directory.path());
    if (store.ok()) return say("opened");
    if (fs::exists(directory.database() + ".new")) return say("left its half-made store behind");
    return store.status().code() == StatusCode::resource_exhausted || say("message:", store.status().message());
  });
}

// Commits numbered batches for ever and says through `acknowledge` which it was told are durable.
[[noreturn]] void commit_for_ever(const std::string& directory, int acknowledge) {
  Result<std::unique_ptr<Store>> store = open_sqlite_store(directory);
  if (!store.ok()) _exit(1);
  for (uint64_t n = (*store)->revision() + 1;; ++n) {
    Store::Batch batch;
    batch.revision = n;
    batch.put_objects = {{"counter", "a", std::to_string(n)}, {"counter", "b", std::to_string(n)}};
    for (uint64_t i = 0; i < 20; ++i) batch.put_rules.push_back({n * 20 + i, "br0", std::to_string(n)});
    if (n > 3) batch.delete_rules = {(n - 3) * 20, (n - 3) * 20 + 1};
    if (!(*store)->commit(batch).ok() || write(acknowledge, &n, sizeof n) != sizeof n) _exit(1);
  }
}

TEST(SqliteStore, AKilledWriterKeepsExactlyWhatWasAcknowledged) {
  const TemporaryDirectory directory;
  std::mt19937 random(3);
  for (int round = 0; round < 25; ++round) {
    int channel[2];
    ASSERT_EQ(pipe2(channel, O_CLOEXEC), 0);
    const pid_t child = fork();
    if (child == 0) commit_for_ever(directory.path(), channel[1]);
    close(channel[1]);
    uint64_t acknowledged = 0;
    ASSERT_EQ(read(channel[0], &acknowledged, sizeof acknowledged), ssize_t{sizeof acknowledged});
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 10'000));  // anywhere within a commit
    kill(child, SIGKILL);
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    while (read(channel[0], &acknowledged, sizeof acknowledged) == sizeof acknowledged) continue;
    close(channel[0]);

    const auto store = open_good(directory.path());
    const Contents contents = contents_of(*store);
    // The batch in progress may have become durable before the writer could say so; never half of it.
    const uint64_t n = contents.revision;
    ASSERT_TRUE(n == acknowledged || n == acknowledged + 1) << n << " but " << acknowledged << " were acknowledged";
    ASSERT_EQ(contents.objects.at({"counter", "a"}), std::to_string(n));
    ASSERT_EQ(contents.objects.at({"counter", "b"}), std::to_string(n));
    ASSERT_EQ(contents.rules.size(), n * 20 - (n > 3 ? (n - 3) * 2 : 0));
    ASSERT_EQ(contents.rules.rbegin()->first, n * 20 + 19);
  }
}

}  // namespace
}  // namespace vswitch
