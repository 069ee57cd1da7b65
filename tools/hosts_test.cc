// Which machines a launch goes on with after some were lost.

#include "tools/hosts.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/core/file.h"
#include "runtime/core/status.h"

namespace trireme {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::vector<Host> Hosts(const std::string& text) {
  return ParseHosts("hosts", text).value();
}

TEST(HostsTest, ASpareTakesThePlaceOfALostHostAndItsRanks) {
  const Machines left = WithoutLost(
      {Hosts("a:4,b:4,c:2"), Hosts("small:2,large:8,last:4")}, {"b"});
  EXPECT_EQ(HostsText(left.hosts), "a:4,large:4,c:2");
  EXPECT_EQ(HostsText(left.spares), "small:2,last:4");
}

TEST(HostsTest, WithoutASpareThePlaceIsGone) {
  const Machines left =
      WithoutLost({Hosts("a:4,b:4,c:2"), Hosts("d:8")}, {"d", "a", "c"});
  EXPECT_EQ(HostsText(left.hosts), "b:4");
  EXPECT_THAT(left.spares, IsEmpty());
}

TEST(HostsTest, ReadsTheHostFilesThatOthersWrite) {
  const std::string path = testing::TempDir() + "/hosts";
  ASSERT_TRUE(
      WriteFileAtomically(path, "# mine\na slots=4\n\nb.example\t# one\n")
          .ok());
  EXPECT_EQ(HostsText(*ReadHostFile(path)), "a:4,b.example:1");
  ASSERT_TRUE(WriteFileAtomically(path, "a slots=4\n-o slots=1\n").ok());
  EXPECT_THAT(MessageOf(ReadHostFile(path).status()),
              HasSubstr("hosts:2: found '-o slots=1'"));
  ASSERT_TRUE(WriteFileAtomically(path, "\n").ok());
  EXPECT_THAT(MessageOf(ReadHostFile(path).status()),
              HasSubstr("found no host"));
}

TEST(HostsTest, FewerRanksFillTheFirstHosts) {
  const auto first = [](int64_t ranks) {
    return HostsText(FirstRanks(Hosts("a:4,b:4"), ranks));
  };
  EXPECT_EQ(first(8), "a:4,b:4");
  EXPECT_EQ(first(6), "a:4,b:2");
  EXPECT_EQ(first(4), "a:4");
  EXPECT_EQ(RanksOn(Hosts("a:4,b:3")), 7);
}

}  // namespace
}  // namespace trireme
