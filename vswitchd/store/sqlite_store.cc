#include <fcntl.h>
#include <fmt/format.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "datapath/base/unique_fd.h"
#include "vswitchd/store/store.h"

namespace vswitch {
namespace {

constexpr int kApplicationId = 0x76737764;  // "vswd": tells our files from other SQLite files
constexpr int kSchemaVersion = 1;
constexpr char kSchema[] =
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE objects (kind TEXT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (kind, name)) "
    "WITHOUT ROWID;"
    "CREATE TABLE rules (id INTEGER PRIMARY KEY, bridge TEXT NOT NULL, value BLOB NOT NULL);"
    "INSERT INTO meta VALUES ('revision', 0);";

// SQLite keeps rows as signed 64-bit integers; ids and revisions stay far below 2^63.
int64_t to_sql(uint64_t value) { return static_cast<int64_t>(value); }
uint64_t from_sql(int64_t value) { return static_cast<uint64_t>(value); }

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

class SqliteStore final : public Store {
 public:
  SqliteStore(Database database, UniqueFd lock) : lock_(std::move(lock)), database_(std::move(database)) {}

  Status prepare() {
    struct {
      Statement& statement;
      const char* sql;
    } const all[] = {{begin_, "BEGIN IMMEDIATE"},
                     {commit_, "COMMIT"},
                     {rollback_, "ROLLBACK"},
                     {put_object_, "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)"},
                     {delete_object_, "DELETE FROM objects WHERE kind = ? AND name = ?"},
                     {put_rule_, "INSERT OR REPLACE INTO rules VALUES (?, ?, ?)"},
                     {delete_rule_, "DELETE FROM rules WHERE id = ?"},
                     {delete_bridge_rules_, "DELETE FROM rules WHERE bridge = ?"},
                     {put_revision_, "UPDATE meta SET value = ? WHERE key = 'revision'"},
                     {get_revision_, "SELECT value FROM meta WHERE key = 'revision'"},
                     {all_objects_, "SELECT kind, name, value FROM objects"},
                     {all_rules_, "SELECT id, bridge, value FROM rules ORDER BY id"}};
    for (const auto& [statement, sql] : all) VSWITCH_RETURN_IF_ERROR(statement.prepare(database_.get(), sql));
    return get_revision_.for_each([this](const Statement& row) {
      revision_ = row.integer(0);
      return Status();
    });
  }

  Status commit(const Batch& batch) override {
    VSWITCH_RETURN_IF_ERROR(begin_.run());
    Status status = write(batch);
    if (status.ok()) status = commit_.run();
    if (!status.ok()) {
      // Some errors (a full disk) have rolled back already; then this is refused and changes nothing.
      if (sqlite3_get_autocommit(database_.get()) == 0) (void)rollback_.run().ok();
      return status;
    }
    revision_ = batch.revision;
    return {};
  }

  uint64_t revision() const override { return revision_; }

  Status for_each_object(const std::function<Status(const Batch::Object&)>& visit) const override {
    return all_objects_.for_each([&](const Statement& row) {
      return visit({std::string(row.bytes(0)), std::string(row.bytes(1)), std::string(row.bytes(2))});
    });
  }

  Status for_each_rule(
      const std::function<Status(uint64_t, std::string_view, std::string_view)>& visit) const override {
    return all_rules_.for_each([&](const Statement& row) { return visit(row.integer(0), row.bytes(1), row.bytes(2)); });
  }

 private:
  Status write(const Batch& batch) {
    for (const std::string& bridge : batch.delete_rules_of_bridge) {
      VSWITCH_RETURN_IF_ERROR(delete_bridge_rules_.bind(1, bridge).run());
    }
    for (const Batch::ObjectName& object : batch.delete_objects) {
      VSWITCH_RETURN_IF_ERROR(delete_object_.bind(1, object.kind).bind(2, object.name).run());
    }
    for (const Batch::Object& object : batch.put_objects) {
      VSWITCH_RETURN_IF_ERROR(put_object_.bind(1, object.kind).bind(2, object.name).bind(3, object.value).run());
    }
    for (const uint64_t id : batch.delete_rules) VSWITCH_RETURN_IF_ERROR(delete_rule_.bind(1, id).run());
    for (const Batch::Rule& rule : batch.put_rules) {
      VSWITCH_RETURN_IF_ERROR(put_rule_.bind(1, rule.id).bind(2, rule.bridge).bind_blob(3, rule.value).run());
    }
    return put_revision_.bind(1, batch.revision).run();
  }

  UniqueFd lock_;  // outlives the database
  Database database_;
  uint64_t revision_ = 0;
  mutable Statement begin_, commit_, rollback_, put_object_, delete_object_, put_rule_, delete_rule_,
      delete_bridge_rules_, put_revision_, get_revision_, all_objects_, all_rules_;
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

Status create_schema(sqlite3* database, const std::string& path) {
  const std::string sql = fmt::format("BEGIN; PRAGMA application_id={}; PRAGMA user_version={}; {} COMMIT;",
                                      kApplicationId, kSchemaVersion, kSchema);
  return run_sql(database, path, sql.c_str());
}

// Is it ours, of a version that we read, and whole? Writes nothing.
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
    return failed_precondition(
        fmt::format("store {}: corrupt ({}); restore it from a backup or move it away", path, row.bytes(0)));
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

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& directory) {
  Result<UniqueFd> lock = lock_directory(directory);
  if (!lock.ok()) return lock.status();
  const std::string path = directory + "/vswitch.db";
  struct stat info {};
  const bool is_new = stat(path.c_str(), &info) != 0 || info.st_size == 0;

  sqlite3* raw = nullptr;
  const int opened =
      sqlite3_open_v2(path.c_str(), &raw, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  Database database(raw);
  if (opened != SQLITE_OK) return file_error(path, opened, sqlite3_errstr(opened));
  if (!is_new) VSWITCH_RETURN_IF_ERROR(check_file(database.get(), path));
  // FULL: a commit is on disk before it is answered. The WAL is checkpointed as it grows.
  VSWITCH_RETURN_IF_ERROR(run_sql(database.get(), path, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;"));
  if (is_new) VSWITCH_RETURN_IF_ERROR(create_schema(database.get(), path));
  auto store = std::make_unique<SqliteStore>(std::move(database), std::move(*lock));
  VSWITCH_RETURN_IF_ERROR(store->prepare());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace vswitch
