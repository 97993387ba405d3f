#include <endian.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "datapath/base/unique_fd.h"
#include "vswitchd/store/checkpointer.h"
#include "vswitchd/store/store.h"

namespace vswitch {
namespace {

// From so many pages on, the log is to be moved into the database: by another thread, as nobody should have to wait for
// it, and in a pause between commits, unless there is none until the log is longer still. Where that thread does not
// keep up, or one commit writes so much that nobody notices the rest, the committing thread does it, so that the log
// does not grow without bound.
constexpr int kLongLog = 1'000, kLongerLog = 8'000, kLongestLog = 16'000;
constexpr int kLongestWaitMs = 1'000;

constexpr int kApplicationId = 0x76737764;  // "vswd": tells our files from other SQLite files
constexpr int kSchemaVersion = 1;
constexpr char kSchema[] =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE objects (kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, sum INTEGER NOT NULL, "
    "PRIMARY KEY (kind, name)) WITHOUT ROWID;"
    "CREATE TABLE rules (id INTEGER PRIMARY KEY, bridge TEXT NOT NULL, value BLOB NOT NULL, sum INTEGER NOT NULL);";

// SQLite keeps rows as signed 64-bit integers; ids and revisions stay far below 2^63.
int64_t to_sql(uint64_t value) { return static_cast<int64_t>(value); }
uint64_t from_sql(int64_t value) { return static_cast<uint64_t>(value); }

// Of everything in a row. SQLite checks the structure of its file, not what the rows say: a bit that flips in a port's
// options or a rule's actions must not come back as another configuration. Any single flip changes the sum.
uint64_t checksum(uint64_t seed, std::string_view bytes) {
  uint64_t sum = (seed ^ bytes.size()) * 0x9e3779b97f4a7c15ULL;
  while (!bytes.empty()) {
    uint64_t word = 0;
    const size_t size = std::min(bytes.size(), sizeof word);
    std::memcpy(&word, bytes.data(), size);
    sum = (std::rotl(sum, 23) ^ le64toh(word)) * 0xd6e8feb86659fd93ULL;
    bytes.remove_prefix(size);
  }
  return sum;
}
uint64_t object_checksum(std::string_view kind, std::string_view name, std::string_view value) {
  return checksum(checksum(checksum(0, kind), name), value);
}
uint64_t rule_checksum(uint64_t id, std::string_view bridge, std::string_view value) {
  return checksum(checksum(id, bridge), value);
}
uint64_t revision_checksum(uint64_t revision) { return checksum(revision, "revision"); }

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close_v2(database); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;

StatusCode code_of(int result) {
  switch (result & 0xff) {
    case SQLITE_FULL:
      return StatusCode::resource_exhausted;
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
    case SQLITE_BUSY:
      return StatusCode::failed_precondition;
    default:
      return StatusCode::internal;
  }
}

// One prepared statement, reset after each use.
class Statement {
 public:
  Statement() = default;
  Status prepare(sqlite3* database, const char* sql) {
    database_ = database;
    sqlite3_stmt* raw = nullptr;
    const int result = sqlite3_prepare_v3(database, sql, -1, SQLITE_PREPARE_PERSISTENT, &raw, nullptr);
    statement_.reset(raw);
    return result == SQLITE_OK ? Status() : error(result);
  }
  Statement& bind(int index, std::string_view text) {
    sqlite3_bind_text64(statement_.get(), index, text.data(), text.size(), SQLITE_STATIC, SQLITE_UTF8);
    return *this;
  }
  Statement& bind_blob(int index, std::string_view bytes) {
    sqlite3_bind_blob64(statement_.get(), index, bytes.data(), bytes.size(), SQLITE_STATIC);
    return *this;
  }
  Statement& bind(int index, uint64_t value) {
    sqlite3_bind_int64(statement_.get(), index, to_sql(value));
    return *this;
  }
  // Runs a statement that gives no rows.
  Status run() {
    const int result = sqlite3_step(statement_.get());
    const Status status = result == SQLITE_DONE ? Status() : error(result);
    sqlite3_reset(statement_.get());
    return status;
  }
  // Calls visit for each row.
  template <typename Visit>
  Status for_each(Visit&& visit) {
    Status status;
    int result = SQLITE_ROW;
    while (status.ok() && (result = sqlite3_step(statement_.get())) == SQLITE_ROW) status = visit(*this);
    if (status.ok() && result != SQLITE_DONE) status = error(result);
    sqlite3_reset(statement_.get());
    return status;
  }
  uint64_t integer(int column) const { return from_sql(sqlite3_column_int64(statement_.get(), column)); }
  std::string_view bytes(int column) const {
    const void* data = sqlite3_column_blob(statement_.get(), column);
    return {static_cast<const char*>(data), static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column))};
  }

 private:
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  Status error(int result) const {
    return {code_of(result),
            fmt::format("store {}: {}", sqlite3_db_filename(database_, "main"), sqlite3_errmsg(database_))};
  }
  sqlite3* database_ = nullptr;
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
};

Status corrupt(const std::string& path, std::string_view reason) {
  return failed_precondition(
      fmt::format("store {}: corrupt ({}); restore it from a backup or move it away", path, reason));
}

class SqliteStore final : public Store {
 public:
  SqliteStore(std::string path, Database database, UniqueFd lock)
      : path_(std::move(path)), lock_(std::move(lock)), database_(std::move(database)), checkpointer_(path_) {
    sqlite3_wal_hook(database_.get(), after_commit, &checkpointer_);  // in place of SQLite's own, which checkpoints
  }

  Status prepare() {
    struct {
      Statement& statement;
      const char* sql;
    } const all[] = {{begin_, "BEGIN IMMEDIATE"},
                     {commit_, "COMMIT"},
                     {rollback_, "ROLLBACK"},
                     {put_object_, "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?)"},
                     {delete_object_, "DELETE FROM objects WHERE kind = ? AND name = ?"},
                     {put_rule_, "INSERT OR REPLACE INTO rules VALUES (?, ?, ?, ?)"},
                     {delete_rule_, "DELETE FROM rules WHERE id = ?"},
                     {delete_bridge_rules_, "DELETE FROM rules WHERE bridge = ?"},
                     {put_revision_, "INSERT OR REPLACE INTO meta VALUES ('revision', ?, ?)"},
                     {get_revision_, "SELECT value, sum FROM meta WHERE key = 'revision'"},
                     {all_objects_, "SELECT kind, name, value, sum FROM objects"},
                     {all_rules_, "SELECT id, bridge, value, sum FROM rules ORDER BY id"}};
    for (const auto& [statement, sql] : all) VSWITCH_RETURN_IF_ERROR(statement.prepare(database_.get(), sql));
    bool found = false;
    VSWITCH_RETURN_IF_ERROR(get_revision_.for_each([&](const Statement& row) {
      found = true;
      revision_ = row.integer(0);
      return revision_checksum(revision_) == row.integer(1) ? Status() : corrupt(path_, "wrong sum of the revision");
    }));
    return found ? Status() : corrupt(path_, "no revision");
  }

  Status commit(const Batch& batch) override {
    Status status = begin();
    if (status.ok()) status = write(batch);
    if (status.ok()) status = commit_.run();
    if (!status.ok()) {
      discard();
      return status;
    }
    begun_ = false;
    revision_ = batch.revision;
    return {};
  }

  Status write_ahead(uint64_t id, std::string_view bridge, std::string_view value) override {
    VSWITCH_RETURN_IF_ERROR(begin());
    return put_rule(id, bridge, value);
  }

  void discard() override {
    begun_ = false;
    // Some errors (a full disk) have rolled back already; then this would be refused.
    if (sqlite3_get_autocommit(database_.get()) == 0) (void)rollback_.run().ok();
  }

  uint64_t revision() const override { return revision_; }

  Status for_each_object(const std::function<Status(const Batch::Object&)>& visit) const override {
    return all_objects_.for_each([&](const Statement& row) {
      if (object_checksum(row.bytes(0), row.bytes(1), row.bytes(2)) != row.integer(3)) {
        return corrupt(path_, "wrong sum of an object");
      }
      return visit({std::string(row.bytes(0)), std::string(row.bytes(1)), std::string(row.bytes(2))});
    });
  }

  Status for_each_rule(
      const std::function<Status(uint64_t, std::string_view, std::string_view)>& visit) const override {
    return all_rules_.for_each([&](const Statement& row) {
      if (rule_checksum(row.integer(0), row.bytes(1), row.bytes(2)) != row.integer(3)) {
        return corrupt(path_, "wrong sum of a rule");
      }
      return visit(row.integer(0), row.bytes(1), row.bytes(2));
    });
  }

 private:
  // What is committed stays so, whatever becomes of the checkpoint.
  static int after_commit(void* checkpointer, sqlite3* database, const char*, int pages) {
    if (pages >= kLongestLog) {
      (void)sqlite3_wal_checkpoint_v2(database, nullptr, SQLITE_CHECKPOINT_PASSIVE, nullptr, nullptr);
    } else if (pages >= kLongLog) {
      static_cast<Checkpointer*>(checkpointer)
          ->request(pages >= kLongerLog ? Checkpointer::Urgency::now : Checkpointer::Urgency::in_a_pause);
    }
    return SQLITE_OK;
  }

  Status begin() {
    if (begun_ && sqlite3_get_autocommit(database_.get()) != 0) {
      return internal_error(fmt::format("store {}: the transaction is gone", path_));
    }
    if (begun_) return {};
    VSWITCH_RETURN_IF_ERROR(begin_.run());
    begun_ = true;
    return {};
  }

  Status put_rule(uint64_t id, std::string_view bridge, std::string_view value) {
    const uint64_t sum = rule_checksum(id, bridge, value);
    return put_rule_.bind(1, id).bind(2, bridge).bind_blob(3, value).bind(4, sum).run();
  }

  Status write(const Batch& batch) {
    for (const std::string& bridge : batch.delete_rules_of_bridge) {
      VSWITCH_RETURN_IF_ERROR(delete_bridge_rules_.bind(1, bridge).run());
    }
    for (const Batch::ObjectName& object : batch.delete_objects) {
      VSWITCH_RETURN_IF_ERROR(delete_object_.bind(1, object.kind).bind(2, object.name).run());
    }
    for (const Batch::Object& object : batch.put_objects) {
      const uint64_t sum = object_checksum(object.kind, object.name, object.value);
      VSWITCH_RETURN_IF_ERROR(
          put_object_.bind(1, object.kind).bind(2, object.name).bind(3, object.value).bind(4, sum).run());
    }
    for (const uint64_t id : batch.delete_rules) VSWITCH_RETURN_IF_ERROR(delete_rule_.bind(1, id).run());
    for (const Batch::Rule& rule : batch.put_rules) {
      VSWITCH_RETURN_IF_ERROR(put_rule(rule.id, rule.bridge, rule.value));
    }
    return put_revision_.bind(1, batch.revision).bind(2, revision_checksum(batch.revision)).run();
  }

  const std::string path_;
  UniqueFd lock_;  // outlives the database
  Database database_;
  uint64_t revision_ = 0;
  bool begun_ = false;  // a transaction, by write_ahead()
  mutable Statement begin_, commit_, rollback_, put_object_, delete_object_, put_rule_, delete_rule_,
      delete_bridge_rules_, put_revision_, get_revision_, all_objects_, all_rules_;
  Checkpointer checkpointer_;  // ends before the database is closed
};

Status file_error(const std::string& path, int result, const std::string& reason) {
  return {code_of(result), fmt::format("store {}: {}", path, reason)};
}

Status run_sql(sqlite3* database, const std::string& path, const char* sql) {
  char* message = nullptr;
  const int result = sqlite3_exec(database, sql, nullptr, nullptr, &message);
  const std::string reason = message != nullptr ? message : sqlite3_errstr(result);
  sqlite3_free(message);
  return result == SQLITE_OK ? Status() : file_error(path, result, reason);
}

Result<int> pragma_number(sqlite3* database, const char* sql) {
  Statement statement;
  VSWITCH_RETURN_IF_ERROR(statement.prepare(database, sql));
  int value = 0;
  VSWITCH_RETURN_IF_ERROR(statement.for_each([&](const Statement& row) {
    value = static_cast<int>(row.integer(0));
    return Status();
  }));
  return value;
}

// Is it ours, of a version that we read, and whole?
Status check_file(sqlite3* database, const std::string& path) {
  const Result<int> application = pragma_number(database, "PRAGMA application_id");
  if (!application.ok()) return application.status();
  if (*application != kApplicationId) {
    return failed_precondition(
        fmt::format("store {}: not a vswitch store; move it away or give another --state-dir", path));
  }
  const Result<int> version = pragma_number(database, "PRAGMA user_version");
  if (!version.ok()) return version.status();
  if (*version != kSchemaVersion) {
    return failed_precondition(
        fmt::format("store {}: written by a newer vswitchd (schema {}, this one reads {}); start that version", path,
                    *version, kSchemaVersion));
  }
  Statement check;
  VSWITCH_RETURN_IF_ERROR(check.prepare(database, "PRAGMA quick_check(1)"));
  return check.for_each([&](const Statement& row) -> Status {
    if (row.bytes(0) == "ok") return {};
    std::string reason(row.bytes(0));  // of several lines; refusals have one
    std::replace(reason.begin(), reason.end(), '\n', ' ');
    return corrupt(path, reason);
  });
}

// Held for the life of the store: two daemons on one store would overwrite each other.
Result<UniqueFd> lock_directory(const std::string& directory) {
  std::error_code error;
  std::filesystem::create_directories(directory, error);
  if (error)
    return failed_precondition(fmt::format("cannot create the state directory {}: {}", directory, error.message()));
  const std::string path = directory + "/vswitch.lock";
  UniqueFd fd(open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640));
  if (!fd)
    return failed_precondition(
        fmt::format("cannot write to the state directory {}: {}", directory, std::strerror(errno)));
  if (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    return failed_precondition(
        fmt::format("state directory {} is in use by another vswitchd; give another --state-dir", directory));
  }
  return fd;
}

Result<Database> open_database(const std::string& path, int flags) {
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(path.c_str(), &raw, flags | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(raw);
  if (opened != SQLITE_OK) return file_error(path, opened, sqlite3_errstr(opened));
  // Our own checkpoints can be in the way for moments, when they find the log's index half written.
  sqlite3_busy_timeout(raw, kLongestWaitMs);
  return database;
}

// Looks at the first bytes only: SQLite would recover and tidy up any database that it opens, somebody else's too.
Status check_header(const std::string& path) {
  constexpr size_t kHeaderSize = 100, kApplicationIdAt = 68;
  const UniqueFd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return failed_precondition(fmt::format("store {}: {}", path, std::strerror(errno)));
  char header[kHeaderSize];
  uint32_t application_id = 0;
  if (read(fd.get(), header, sizeof header) == static_cast<ssize_t>(sizeof header) &&
      std::memcmp(header, "SQLite format 3", 16) == 0) {
    std::memcpy(&application_id, header + kApplicationIdAt, sizeof application_id);
  }
  if (be32toh(application_id) == kApplicationId) return {};
  return failed_precondition(
      fmt::format("store {}: not a vswitch store; move it away or give another --state-dir", path));
}

Status sync_directory(const std::string& directory) {
  const UniqueFd fd(open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd && fsync(fd.get()) == 0) return {};
  return failed_precondition(fmt::format("state directory {}: {}", directory, std::strerror(errno)));
}

// Made under another name and moved into place: whenever we are killed, there is a whole store or none.
Status create_store(const std::string& directory, const std::string& path) {
  const std::string unfinished = path + ".new";
  std::error_code error;
  if (std::filesystem::file_size(path + "-wal", error) > 0 && !error) {
    return failed_precondition(
        fmt::format("store {}: missing, but its log {}-wal is there; restore it from a backup "
                    "or move the log away",
                    path, path));
  }
  std::filesystem::remove(unfinished, error);
  std::filesystem::remove(unfinished + "-journal", error);
  const std::string sql = fmt::format(
      "PRAGMA synchronous=FULL; BEGIN; PRAGMA application_id={}; PRAGMA user_version={}; {} "
      "INSERT INTO meta VALUES ('revision', 0, {}); COMMIT;",
      kApplicationId, kSchemaVersion, kSchema, to_sql(revision_checksum(0)));
  Status status;
  {
    Result<Database> database = open_database(unfinished, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE);
    if (!database.ok()) return database.status();
    status = run_sql(database->get(), unfinished, sql.c_str());
  }
  if (status.ok() && rename(unfinished.c_str(), path.c_str()) != 0) {
    status = failed_precondition(fmt::format("store {}: {}", path, std::strerror(errno)));
  }
  if (!status.ok()) {
    std::filesystem::remove(unfinished, error);
    std::filesystem::remove(unfinished + "-journal", error);
    return status;
  }
  return sync_directory(directory);
}

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& directory) {
  Result<UniqueFd> lock = lock_directory(directory);
  if (!lock.ok()) return lock.status();
  const std::string path = directory + "/vswitch.db";
  struct stat info {};
  if (stat(path.c_str(), &info) != 0 || info.st_size == 0) VSWITCH_RETURN_IF_ERROR(create_store(directory, path));
  VSWITCH_RETURN_IF_ERROR(check_header(path));
  Result<Database> database = open_database(path, SQLITE_OPEN_READWRITE);
  if (!database.ok()) return database.status();
  VSWITCH_RETURN_IF_ERROR(check_file(database->get(), path));
  // FULL: a commit is on disk before it is answered. The WAL is checkpointed as it grows (SqliteStore::after_commit).
  VSWITCH_RETURN_IF_ERROR(run_sql(database->get(), path, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
  auto store = std::make_unique<SqliteStore>(path, std::move(*database), std::move(*lock));
  VSWITCH_RETURN_IF_ERROR(store->prepare());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace vswitch
