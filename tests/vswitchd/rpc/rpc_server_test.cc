// The API over a real unix socket, in front of a real switch that keeps nothing.
#include "vswitchd/rpc/rpc_server.h"

#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/support/netns.h"
#include "vswitch/v1/config_service.grpc.pb.h"
#include "vswitch/v1/datapath_service.grpc.pb.h"
#include "vswitch/v1/error.pb.h"
#include "vswitch/v1/rule_service.grpc.pb.h"
#include "vswitchd/rpc/unix_socket.h"

namespace vswitch {
namespace {

// A bridge has a device of its own.
[[maybe_unused]] const auto* const kNamespace = testing::AddGlobalTestEnvironment(new test::PrivateNamespace);

class RpcServerTest : public ::testing::Test {
 protected:
  void SetUp() override {
    char pattern[] = "/tmp/vswitch-rpc-XXXXXX";
    ASSERT_NE(mkdtemp(pattern), nullptr);
    directory_ = pattern;
    Result<std::unique_ptr<Switch>> opened = Switch::open(SwitchOptions{});
    ASSERT_TRUE(opened.ok()) << opened.status().message();
    switch_ = *std::move(opened);
    RpcServerOptions options;
    options.socket = socket();
    options.version = "test";
    Result<std::unique_ptr<RpcServer>> server = RpcServer::start(*switch_, options);
    ASSERT_TRUE(server.ok()) << server.status().message();
    server_ = *std::move(server);
    channel_ = grpc::CreateChannel("unix:" + socket(), grpc::InsecureChannelCredentials());
    config_ = v1::ConfigService::NewStub(channel_);
    rules_ = v1::RuleService::NewStub(channel_);
  }
  void TearDown() override {
    server_.reset();
    switch_.reset();
    std::filesystem::remove_all(directory_);
  }

  std::string socket() const { return directory_ + "/vswitchd.sock"; }

  std::string directory_;
  std::unique_ptr<Switch> switch_;
  std::unique_ptr<RpcServer> server_;
  std::shared_ptr<grpc::Channel> channel_;
  std::unique_ptr<v1::ConfigService::Stub> config_;
  std::unique_ptr<v1::RuleService::Stub> rules_;
};

v1::ErrorDetails details(const grpc::ClientContext& call) {
  v1::ErrorDetails out;
  auto it = call.GetServerTrailingMetadata().find("vswitch-error-bin");
  if (it != call.GetServerTrailingMetadata().end()) {
    out.ParseFromArray(it->second.data(), static_cast<int>(it->second.size()));
  }
  return out;
}

TEST_F(RpcServerTest, OnlyOwnerAndGroupMayConnect) {
  struct stat info {};
  ASSERT_EQ(stat(socket().c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0660u);
}

TEST_F(RpcServerTest, VersionAndHealth) {
  grpc::ClientContext call, second, third;
  v1::GetVersionResponse version;
  ASSERT_TRUE(config_->GetVersion(&call, {}, &version).ok());
  EXPECT_EQ(version.version(), "test");
  auto health = grpc::health::v1::Health::NewStub(channel_);
  grpc::health::v1::HealthCheckResponse reply;
  ASSERT_TRUE(health->Check(&second, {}, &reply).ok());
  EXPECT_EQ(reply.status(), grpc::health::v1::HealthCheckResponse::SERVING);
  grpc::health::v1::HealthCheckRequest unknown;
  unknown.set_service("no.such.Service");
  EXPECT_EQ(health->Check(&third, unknown, &reply).error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcServerTest, ErrorsHaveCodeFieldAndOperation) {
  grpc::ClientContext call;
  v1::GetPortRequest get;
  get.set_name("ports/nothing");
  v1::Port port;
  EXPECT_EQ(config_->GetPort(&call, get, &port).error_code(), grpc::StatusCode::NOT_FOUND);

  grpc::ClientContext second;
  v1::ApplyRequest apply;
  apply.add_operations()->mutable_delete_bridge()->set_name("x");
  apply.mutable_operations(0)->mutable_delete_bridge()->set_allow_missing(true);
  apply.add_operations()->mutable_create_port()->mutable_port()->set_name("p");
  v1::ApplyResponse reply;
  grpc::Status status = config_->Apply(&second, apply, &reply);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  v1::ErrorDetails found = details(second);
  ASSERT_EQ(found.details_size(), 1);
  EXPECT_EQ(found.details(0).operation(), 1u);
  EXPECT_EQ(found.details(0).field(), "bridge");
  EXPECT_EQ(found.details(0).message(), status.error_message());
}

TEST_F(RpcServerTest, WatchBeginsWithTheRevision) {
  grpc::ClientContext call;
  auto stream = config_->Watch(&call, {});
  v1::WatchResponse event;
  ASSERT_TRUE(stream->Read(&event));
  EXPECT_EQ(event.kind(), v1::CHANGE_KIND_STARTED);
  EXPECT_EQ(event.revision(), switch_->revision());
  call.TryCancel();
  while (stream->Read(&event)) {
  }
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);

  grpc::ClientContext second;
  v1::WatchRequest old;
  old.set_from_revision(switch_->revision() + 100);
  auto refused = config_->Watch(&second, old);
  while (refused->Read(&event)) {
  }
  EXPECT_EQ(refused->Finish().error_code(), grpc::StatusCode::OUT_OF_RANGE);
}

TEST_F(RpcServerTest, CountersOfTheDatapathCanBeHadWithoutItsPorts) {
  VSWITCH_REQUIRE_NETNS();
  grpc::ClientContext configuring, asking_all, asking_counters;
  v1::ApplyRequest apply;
  apply.add_operations()->mutable_create_bridge()->mutable_bridge()->set_name("bridges/br0");
  v1::Port* port = apply.add_operations()->mutable_create_port()->mutable_port();
  port->set_name("ports/p1");
  port->set_bridge("bridges/br0");
  port->set_type("dummy");
  v1::ApplyResponse applied;
  const grpc::Status status = config_->Apply(&configuring, apply, &applied);
  ASSERT_TRUE(status.ok()) << status.error_message();

  const auto datapath = v1::DatapathService::NewStub(channel_);
  v1::GetDatapathRequest request;
  v1::Datapath all, counters;
  ASSERT_TRUE(datapath->GetDatapath(&asking_all, request, &all).ok());
  EXPECT_GE(all.ports_size(), 1);
  request.set_counters_only(true);
  ASSERT_TRUE(datapath->GetDatapath(&asking_counters, request, &counters).ok());
  EXPECT_EQ(counters.ports_size(), 0);
  EXPECT_EQ(counters.kernel_path(), all.kernel_path());
}

TEST_F(RpcServerTest, LoadingIntoNoBridgeIsRefused) {
  grpc::ClientContext call;
  v1::LoadRulesResponse reply;
  auto stream = rules_->LoadRules(&call, &reply);
  v1::LoadRulesRequest message;
  message.set_bridge("nowhere");
  message.set_text("actions=drop\n");
  stream->Write(message);
  stream->WritesDone();
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(RpcServerTest, ASecondDaemonIsRefusedAndADeadSocketReplaced) {
  EXPECT_EQ(prepare_socket_path(socket()).code(), StatusCode::failed_precondition);
  server_->shutdown();
  EXPECT_FALSE(std::filesystem::exists(socket()));
  std::ofstream(directory_ + "/file") << "not a socket";
  EXPECT_EQ(prepare_socket_path(directory_ + "/file").code(), StatusCode::failed_precondition);
  EXPECT_TRUE(prepare_socket_path(directory_ + "/absent").ok());
}

TEST(ListenAddress, TcpNeedsTls) {
  EXPECT_TRUE(check_listen_address("unix:/tmp/x.sock").ok());
  EXPECT_FALSE(check_listen_address("unix:").ok());
  EXPECT_EQ(check_listen_address("0.0.0.0:50051").code(), StatusCode::unimplemented);
}

}  // namespace
}  // namespace vswitch
