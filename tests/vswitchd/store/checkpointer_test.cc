#include "vswitchd/store/checkpointer.h"

#include <gtest/gtest.h>
#include <sqlite3.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <thread>

namespace vswitch {
namespace {

namespace fs = std::filesystem;

// A database with a log that nobody moves into it.
class CheckpointerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string made = fs::temp_directory_path() / "vswitch-checkpoint-XXXXXX";
    ASSERT_NE(mkdtemp(made.data()), nullptr);
    directory_ = made;
    path_ = directory_ + "/test.db";
    ASSERT_EQ(sqlite3_open(path_.c_str(), &database_), SQLITE_OK);
    sqlite3_busy_timeout(database_, 1'000);  // as the store does
    run("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; CREATE TABLE numbers (n INTEGER, filling BLOB);");
  }
  void TearDown() override {
    sqlite3_close(database_);
    fs::remove_all(directory_);
  }

  void run(const char* sql) { ASSERT_EQ(sqlite3_exec(database_, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sql; }
  // Some hundreds of pages.
  void write() {
    run("WITH RECURSIVE all_of(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM all_of WHERE n < 500)"
        "INSERT INTO numbers SELECT n, zeroblob(4000) FROM all_of;");
  }
  size_t rows() {
    sqlite3_stmt* statement = nullptr;
    EXPECT_EQ(sqlite3_prepare_v2(database_, "SELECT count(*) FROM numbers", -1, &statement, nullptr), SQLITE_OK);
    EXPECT_EQ(sqlite3_step(statement), SQLITE_ROW);
    const auto count = static_cast<size_t>(sqlite3_column_int64(statement, 0));
    sqlite3_finalize(statement);
    return count;
  }
  size_t database_size() const { return fs::file_size(path_); }
  size_t log_size() const { return fs::file_size(path_ + "-wal"); }
  void checkpoint() {
    Checkpointer checkpointer(path_);
    checkpointer.request(Checkpointer::Urgency::in_a_pause);
  }

  std::string directory_, path_;
  sqlite3* database_ = nullptr;
};

constexpr size_t kWritten = 500 * 4000;

TEST_F(CheckpointerTest, MovesTheLogIntoTheDatabaseWhichStaysOpen) {
  write();
  EXPECT_LT(database_size(), kWritten);
  checkpoint();
  EXPECT_GE(database_size(), kWritten);
  EXPECT_EQ(rows(), 500u);
}

TEST_F(CheckpointerTest, TheLogIsUsedAgainFromItsBeginning) {
  write();
  const size_t once = log_size();
  for (int i = 0; i < 4; ++i) {
    checkpoint();
    write();
  }
  EXPECT_LT(log_size(), once + once / 4);
  EXPECT_EQ(rows(), 2500u);
}

TEST_F(CheckpointerTest, WritersGoOnMeanwhile) {
  Checkpointer checkpointer(path_);
  for (int i = 0; i < 20; ++i) {
    write();
    checkpointer.request(Checkpointer::Urgency::in_a_pause);
  }
  EXPECT_EQ(rows(), 10'000u);
}

TEST_F(CheckpointerTest, WaitsForAPauseUnlessItIsUrgent) {
  Checkpointer checkpointer(path_, std::chrono::hours(1));
  for (int i = 0; i < 20; ++i) {  // takes longer than a checkpoint
    write();
    checkpointer.request(Checkpointer::Urgency::in_a_pause);
  }
  EXPECT_LT(database_size(), kWritten);
  checkpointer.request(Checkpointer::Urgency::now);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
  while (database_size() < 20 * kWritten && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  EXPECT_GE(database_size(), 20 * kWritten);
}

TEST_F(CheckpointerTest, ItsEndWaitsForNoPause) {
  write();
  {
    Checkpointer checkpointer(path_, std::chrono::hours(1));
    checkpointer.request(Checkpointer::Urgency::in_a_pause);
  }
  EXPECT_GE(database_size(), kWritten);
}

TEST_F(CheckpointerTest, DoesNothingUnasked) {
  write();
  { const Checkpointer checkpointer(path_); }
  EXPECT_LT(database_size(), kWritten);
}

TEST_F(CheckpointerTest, ADatabaseThatIsNotThereIsNotMade) {
  const std::string other = directory_ + "/other.db";
  {
    Checkpointer checkpointer(other);
    checkpointer.request(Checkpointer::Urgency::in_a_pause);
  }
  EXPECT_FALSE(fs::exists(other));
}

}  // namespace
}  // namespace vswitch
