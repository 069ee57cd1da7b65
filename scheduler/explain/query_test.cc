#include "scheduler/explain/query.h"

#include <string>

#include "gtest/gtest.h"

namespace trireme {
namespace {

TEST(WhyQuery, NamesFieldsAndTheirValuesInEitherCase) {
  const auto query =
      ParseWhyQuery("tp=4,schedule=zb_v,sharding=PARAMETERS,offload=false");
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_EQ(query->tp, 4);
  EXPECT_EQ(query->schedule, Plan::ZB_V);
  EXPECT_EQ(query->sharding, Plan::PARAMETERS);
  EXPECT_EQ(query->offload, false);
  EXPECT_FALSE(query->pp.has_value());
}

TEST(WhyQuery, SaysWhatAFieldCanBe) {
  for (const auto& [text, expected] :
       {std::pair("schedule=zbv", "GPIPE, ONE_F_ONE_B"),
        std::pair("tp=0", "at least 1"), std::pair("tp=x", "tp=x"),
        std::pair("tp=1,tp=2", "found tp=2, expected the field once"),
        std::pair("speed=1", "microbatch_size"), std::pair("tp", "FIELD=VALUE"),
        std::pair("", "FIELD=VALUE"),
        std::pair("offload=perhaps", "true or")}) {
    const auto query = ParseWhyQuery(text);
    ASSERT_FALSE(query.ok()) << text;
    EXPECT_NE(std::string(query.status().message()).find(expected),
              std::string::npos)
        << query.status();
  }
}

}  // namespace
}  // namespace trireme
