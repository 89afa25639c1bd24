package vault

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	awsauth "github.com/hashicorp/vault/api/auth/aws"
	kubeauth "github.com/hashicorp/vault/api/auth/kubernetes"

	"github.com/cofferhq/coffer/internal/auth/aws/awstest"
	"github.com/cofferhq/coffer/internal/auth/kubernetes/kubetest"
)

// TestKubernetes logs a pod in with the helper of Vault's client.
func TestKubernetes(t *testing.T) {
	t.Parallel()
	_, client := start(t)
	kube := kubetest.New(t)
	uid := kube.Create("shop", "web")
	kube.Create("coffer", "reviewer")
	kube.Allow("coffer", "reviewer")
	must(t, client.Sys().EnableAuthWithOptions("kubernetes", &api.EnableAuthOptions{Type: "kubernetes"}))
	none, err := client.Logical().Read("auth/kubernetes/config")
	if err != nil || none != nil {
		t.Errorf("a configuration that is not there: %v %v", none, err)
	}
	_, err = client.Logical().Write("auth/kubernetes/config", map[string]any{
		"kubernetes_host": kube.URL, "kubernetes_ca_cert": kube.CA, "token_reviewer_jwt": kube.Token("coffer", "reviewer", time.Hour), "issuer": kube.URL, "disable_iss_validation": "false",
	})
	must(t, err)
	config, err := client.Logical().Read("auth/kubernetes/config")
	must(t, err)
	equal(t, "host", config.Data["kubernetes_host"], kube.URL)
	equal(t, "keys", config.Data["pem_keys"], []any{})
	equal(t, "reviewer", config.Data["token_reviewer_jwt_set"], true)
	if config.Data["token_reviewer_jwt"] != nil {
		t.Error("the reviewer's token is answered")
	}
	_, err = client.Logical().Write("auth/kubernetes/role/web", map[string]any{
		"bound_service_account_names": []string{"web"}, "bound_service_account_namespaces": []string{"shop"}, "audience": "vault",
		"token_policies": []string{"default"}, "token_ttl": "10m", "alias_name_source": "serviceaccount_uid",
	})
	must(t, err)
	role, err := client.Logical().Read("auth/kubernetes/role/web")
	must(t, err)
	equal(t, "names", role.Data["bound_service_account_names"], []any{"web"})
	equal(t, "alias", role.Data["alias_name_source"], "serviceaccount_uid")
	roles, err := client.Logical().List("auth/kubernetes/role")
	must(t, err)
	equal(t, "roles", roles.Data["keys"], []any{"web"})

	file := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(file, []byte(kube.Token("shop", "web", time.Hour, "vault")+"\n"), 0o600))
	helper, err := kubeauth.NewKubernetesAuth("web", kubeauth.WithServiceAccountTokenPath(file))
	must(t, err)
	pod := as(t, client, "")
	in, err := pod.Auth().Login(context.Background(), helper)
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{
		"role": "web", "service_account_name": "web", "service_account_namespace": "shop", "service_account_uid": uid, "service_account_secret_name": "",
	})
	self, err := pod.Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "kubernetes-shop-web")
	_, err = pod.Auth().Token().RenewSelf(60)
	must(t, err)
	kube.Delete("shop", "web")
	_, err = as(t, client, "").Auth().Login(context.Background(), helper)
	refused(t, err, 403, "permission denied")
	kube.Answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) })
	other := as(t, client, "")
	other.SetMaxRetries(0)
	_, err = other.Auth().Login(context.Background(), helper)
	refused(t, err, 503, "the Kubernetes API server at "+kube.URL+" answered 500")
	_, err = client.Logical().Delete("auth/kubernetes/role/web")
	must(t, err)
	if _, err = pod.Auth().Token().RenewSelf(60); err == nil {
		t.Error("a token whose role was deleted was renewed")
	}
}

// TestAWS logs in with the helper of Vault's client, which signs with AWS's SDK.
func TestAWS(t *testing.T) {
	_, client := start(t)
	sts := awstest.New(t)
	by := sts.Role("123456789012", "deploy", "AROADEPLOY0000000001")
	must(t, client.Sys().EnableAuthWithOptions("aws", &api.EnableAuthOptions{Type: "aws"}))
	_, err := client.Logical().Write("auth/aws/config/client", map[string]any{
		"sts_endpoint": sts.URL, "sts_region": "us-east-1", "endpoint_ca_pem": sts.CA, "iam_server_id_header_value": "vault.example.com",
		"access_key": "AKIAX", "secret_key": "secret", "max_retries": -1,
	})
	must(t, err)
	config, err := client.Logical().Read("auth/aws/config/client")
	must(t, err)
	equal(t, "header", config.Data["iam_server_id_header_value"], "vault.example.com")
	if config.Data["secret_key"] != nil {
		t.Error("the secret key is answered")
	}
	_, err = client.Logical().Write("auth/aws/config/identity", map[string]any{"iam_alias": "unique_id", "iam_metadata": []string{"default", "client_arn"}})
	must(t, err)
	_, err = client.Logical().Write("auth/aws/role/deploy", map[string]any{
		"auth_type": "iam", "bound_iam_principal_arn": []string{"arn:aws:iam::123456789012:role/deploy"}, "resolve_aws_unique_ids": false,
		"token_policies": []string{"default"}, "token_ttl": "10m",
	})
	must(t, err)
	for _, path := range []string{"auth/aws/role", "auth/aws/roles"} {
		roles, err := client.Logical().List(path)
		must(t, err)
		equal(t, path, roles.Data["keys"], []any{"deploy"})
	}
	t.Setenv("AWS_ACCESS_KEY_ID", by.AccessKey)
	t.Setenv("AWS_SECRET_ACCESS_KEY", by.SecretKey)
	t.Setenv("AWS_SESSION_TOKEN", by.Session)
	login := func(options ...awsauth.LoginOption) (*api.Client, *api.Secret, error) {
		helper, err := awsauth.NewAWSAuth(append(options, awsauth.WithRole("deploy"))...)
		must(t, err)
		own := as(t, client, "")
		in, err := own.Auth().Login(context.Background(), helper)
		return own, in, err
	}
	own, in, err := login(awsauth.WithIAMServerIDHeader("vault.example.com"))
	must(t, err)
	equal(t, "metadata", in.Auth.Metadata, map[string]string{"account_id": "123456789012", "auth_type": "iam", "client_arn": by.ARN})
	self, err := own.Auth().Token().LookupSelf()
	must(t, err)
	equal(t, "display name", self.Data["display_name"], "aws-deploy")
	_, err = own.Auth().Token().RenewSelf(60)
	must(t, err)
	_, _, err = login()
	refused(t, err, 400, `error validating X-Vault-AWS-IAM-Server-ID header: missing header "X-Vault-AWS-IAM-Server-ID"`)
	_, _, err = login(awsauth.WithIAMServerIDHeader("other.example.com"))
	refused(t, err, 400, "error validating X-Vault-AWS-IAM-Server-ID header")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "wrong")
	_, _, err = login(awsauth.WithIAMServerIDHeader("vault.example.com"))
	refused(t, err, 400, "received error code 403 from STS: SignatureDoesNotMatch")
}
